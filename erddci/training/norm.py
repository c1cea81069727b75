"""Group normalisation whose gradient is quick on a CPU, where torch's takes a third of a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


def quicken(network: nn.Module) -> None:
    """Give all group normalisation of a network the quick gradient, in place."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = QuickGroupNorm


class QuickGroupNorm(nn.GroupNorm):
    """The same values as `nn.GroupNorm`, for bfloat16 maps in channels-last order."""

    def forward(self, input: Tensor) -> Tensor:
        quick = input.dtype == torch.bfloat16 and input.ndim == 4 and self.training
        if not (quick and input.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(input)
        return _Normalise.apply(input, self.weight, self.bias, self.num_groups, self.eps)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        count, channels, height, width = x.shape
        half = weight.to(x.dtype), bias.to(x.dtype)
        area = height * width
        y, mean, rate = torch.native_group_norm(x, *half, count, channels, area, groups, eps)
        ctx.save_for_backward(x, weight, mean.float(), rate.float())
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rate = ctx.saved_tensors  # type: ignore[attr-defined]
        wide = len(weight) // mean.shape[1]  # channels in a group
        mean, rate = (each.repeat_interleave(wide, 1)[:, None] for each in (mean, rate))
        rows, wanted = (e.permute(0, 2, 3, 1).flatten(1, 2) for e in (x, gradient))  # [B, HW, C]
        ones = rows.new_ones(len(rows), 1, rows.shape[1])
        # Sums over the picture as products: they run on the matrix unit.
        total = (ones @ wanted).float()
        aligned = (ones @ (wanted * (rows - mean.to(rows)))).float() * rate

        def shared(values: Tensor) -> Tensor:  # the mean over a group, for each of its channels
            grouped = (values * weight).unflatten(2, (-1, wide)).mean(3)
            return grouped.repeat_interleave(wide, 2) / rows.shape[1]

        slope = -(rate**2) * shared(aligned)
        offset = -rate * shared(total) - slope * mean
        back = torch.addcmul(offset.to(rows), wanted, (rate * weight).to(rows))
        back = torch.addcmul(back, rows, slope.to(rows))
        back = back.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return back, aligned.sum((0, 1)), total.sum((0, 1)), None, None
