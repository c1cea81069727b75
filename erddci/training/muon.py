"""Muon: momentum whose steps are made orthogonal, which trains convolutions in fewer steps.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# The quintic whose iteration brings singular values near 1, as the authors fitted it.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for kernels and matrices of at least `smallest` rows and columns, AdamW for the rest.

    Args:
        parameters: what to train.
        learning_rate: of AdamW; that of Muon is `ratio` times as large.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        ratio: float = 5.0,
        momentum: float = 0.95,
        smallest: int = 16,
    ) -> None:
        wide: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for weight in parameters:
            (wide if weight.ndim > 1 and min(_matrix(weight).shape) >= smallest else rest).append(
                weight
            )
        groups = [{"params": wide, "lr": ratio * learning_rate, "muon": True}]
        groups += [{"params": rest, "lr": learning_rate, "muon": False}]
        self.ratio = ratio
        super().__init__(groups, {"momentum": momentum, "betas": (0.9, 0.99)})

    def set_rate(self, learning_rate: float) -> None:
        """Change the learning rate of AdamW, and with it Muon's."""
        for group in self.param_groups:
            group["lr"] = learning_rate * (self.ratio if group["muon"] else 1)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                change = (
                    _orthogonal(weight.grad, state, group)
                    if group["muon"]
                    else _adam(weight.grad, state, group)
                )
                weight.sub_(change, alpha=group["lr"])


def _kept(state: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    """What an optimizer keeps under a name, zeros at first."""
    if name not in state:
        state[name] = torch.zeros_like(like)
    return state[name]


def _matrix(weight: Tensor) -> Tensor:
    return weight.reshape(len(weight), -1)


def _orthogonal(gradient: Tensor, state: dict[str, Tensor], group: dict) -> Tensor:
    average = _kept(state, "average", gradient)
    average.lerp_(gradient, 1 - group["momentum"])
    x = _matrix(gradient.lerp(average, group["momentum"])).bfloat16()  # Nesterov's
    tall = len(x) > x.shape[1]
    x = (x.T if tall else x) / (x.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    x = x.T if tall else x
    # As large a step, root mean square, as Adam's of the same learning rate times 0.2.
    return 0.2 * max(x.shape) ** 0.5 * x.float().reshape(gradient.shape)


def _adam(gradient: Tensor, state: dict[str, Tensor], group: dict) -> Tensor:
    first = _kept(state, "first", gradient)
    second = _kept(state, "second", gradient)
    count = _kept(state, "count", torch.zeros(()))
    count += 1
    near, far = group["betas"]
    first.lerp_(gradient, 1 - near)
    second.lerp_(gradient.square(), 1 - far)
    scale = (second / (1 - far**count)).sqrt() + 1e-8
    return first / (1 - near**count) / scale
