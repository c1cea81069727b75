"""Attention control: one call of a UNet lets its attention steer another call.

`attached` puts a `ControlAttnProcessor` in place of every attention processor of a UNet, and takes it out again.
What a tap does depends on the mode of its `AttentionState`: in mode "source" it remembers queries, keys and
values, in modes "target" and "null" it asks the control what to do with them, and otherwise it is
not there.  `erddci.controls` has the controls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention as AttentionLayer
from torch import Tensor, nn


@dataclass(frozen=True)
class AttentionSite:
    """Where in a UNet an attention sits.

    Args:
        name: diffusers' name of its processor.
        relative_size: the side of its maps as a share of the latent's side.
    """

    name: str
    relative_size: float = 1.0

    @property
    def cross(self) -> bool:
        """Whether it attends to the prompt; else it attends to the image self_until."""
        return ".attn2." in self.name

    @property
    def decoder(self) -> bool:
        """Whether it is on the way up, where a UNet draws."""
        return self.name.startswith("up_blocks")


@dataclass(frozen=True)
class Attention:
    """Queries [B, heads, Q, D], keys and values [B, heads, K, D] of one attention in one call."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float

    @cached_property
    def probs(self) -> Tensor:
        """Attention probabilities [B, heads, Q, K]."""
        # Scaled first, so that float16 does not overflow.
        return (self.query * self.scale @ self.key.mT).softmax(-1)

    def repeat(self, times: int) -> Attention:
        """The same attention for several targets of each sample, target by target."""
        if times == 1:
            return self
        query, key, value = (e.repeat(times, 1, 1, 1) for e in (self.query, self.key, self.value))
        return Attention(query, key, value, self.scale)


Controlled = tuple[Tensor, Tensor] | None


class Control(Protocol):
    """What may be asked of a control.

    `controls_unconditional` says whether it also steers the unconditional rows of guidance, `features_until` until which
    share of the walk the decoder's features are the source's.
    """

    @property
    def controls_unconditional(self) -> bool: ...

    @property
    def features_until(self) -> float: ...

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        """Probabilities and values to use; `progress` is the share of the walk that is behind us."""
        ...


@dataclass
class AttentionState:
    """What the state of a UNet share: mode, memory of the source's call, and maps of the words.

    Args:
        control: what to do with the target's attention.
        shape: height and width of the latents.
        max_relative_size: largest side of the maps that `maps` gathers, as a share of the latent's side.
    """

    control: Control
    shape: tuple[int, int]
    max_relative_size: float = 0.5
    mode: str = "off"
    progress: float = 0.0
    calls: int = 0
    changed: bool = False
    memory: dict[str, Attention] = field(default_factory=dict)
    source_features: Tensor | None = None  # features of the source
    sums: dict[str, list] = field(default_factory=dict)

    @contextmanager
    def set(self, mode: str, progress: float = 0.0) -> Iterator[None]:
        """Run the calls of a block as "source", "target", "null" (of the target), or "off"."""
        self.mode, self.progress = mode, progress
        try:
            yield
        finally:
            self.mode = "off"

    def control_attention(self, name: str, attention: Attention) -> Controlled:
        """Remember the source's attention, or let the control have the target's."""
        site = self._site(name, attention)
        if self.mode == "source":
            self.memory[name] = attention
            self._gather("source", site, attention.probs) if site.cross else None
            return None
        source = self.memory[name].repeat(len(attention.query) // len(self.memory[name].query))
        self.calls += 1
        controlled = self.control(site, source, attention, self.progress)
        if site.cross and self.mode == "target":  # a null prompt has other words
            self._gather("target", site, controlled[0] if controlled else attention.probs)
        if controlled and not self.changed:
            pairs = zip(controlled, (attention.probs, attention.value), strict=True)
            self.changed = not all(torch.equal(used, own) for used, own in pairs)
        return controlled

    def inject_features(self, features: Tensor) -> Tensor:
        """Remember the source's features, or put them in place of the target's."""
        if self.mode == "source":
            self.source_features = features
        controlled, source_features = self.mode in ("target", "null"), self.source_features
        if (
            not controlled
            or source_features is None
            or self.progress >= self.control.features_until
        ):
            return features
        self.changed = True
        return source_features.repeat(len(features) // len(source_features), 1, 1, 1)

    def maps(self, whose: str) -> Tensor:
        """Mean cross-attention so far [B, L, H, W] of "source" or "target", one map a token.

        Raises:
            ValueError: no call was made yet.
        """
        if whose not in self.sums:
            raise ValueError(f"expected a call in mode {whose!r} before its maps are looked at")
        total, count = self.sums[whose]
        return total / count

    def _site(self, name: str, attention: Attention) -> AttentionSite:
        height, width = self.shape
        return AttentionSite(name, (attention.query.shape[2] / (height * width)) ** 0.5)

    def _gather(self, whose: str, site: AttentionSite, probs: Tensor) -> None:
        if site.relative_size > self.max_relative_size:
            return
        side = [round(each * site.relative_size) for each in self.shape]
        maps = probs.mean(1).mT.reshape(len(probs), -1, *side)
        maps = F.interpolate(maps.float(), self.shape, mode="bilinear")
        total, count = self.sums.get(whose, (0, 0))
        self.sums[whose] = [total + maps, count + 1]


@dataclass
class ControlAttnProcessor:
    """An attention processor that lets `AttentionState` have their say."""

    name: str
    original: object
    state: AttentionState

    def __call__(
        self,
        attn: AttentionLayer,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *others: object,
        **more: object,
    ) -> Tensor:
        if self.state.mode == "off":
            return self.original(attn, hidden_states, encoder_hidden_states, *others, **more)  # type: ignore[operator]
        words = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        layers = ((attn.to_q, hidden_states), (attn.to_k, words), (attn.to_v, words))
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # type: ignore[misc]
            for layer, x in layers
        )
        attention = Attention(query, key, value, attn.scale)
        controlled = self.state.control_attention(self.name, attention)
        if controlled:
            probs, value = controlled
            attended = probs @ value
        else:
            parts = attention.query, attention.key, attention.value
            attended = F.scaled_dot_product_attention(*parts, scale=attn.scale)
        attended = attended.transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](attended))  # type: ignore[index]
        return (out + hidden_states * attn.residual_connection) / attn.rescale_output_factor


@contextmanager
def attention_control(
    unet: UNet2DConditionModel | None, control: Control, shape: tuple[int, int]
) -> Iterator[AttentionState]:
    """Control all attention of a UNet while the block runs; afterwards it is as it was.

    Args:
        shape: height and width of the latents.

    Raises:
        ValueError: a network without cross-attention, or with attention of another kind.
        RuntimeError: the block ended and the control was never asked.
    """
    processors = getattr(unet, "attn_processors", {})
    if not any(AttentionSite(name).cross for name in processors):
        raise ValueError(
            f"expected a UNet with cross-attention, got {type(unet).__name__} without: "
            "attention control needs one, edit with control=None"
        )
    assert unet is not None
    for name, processor in processors.items():
        layer = unet.get_submodule(name.removesuffix(".processor"))
        odd = [a for a in ("group_norm", "spatial_norm", "norm_q") if getattr(layer, a, None)]
        if odd or layer.norm_cross or "2_0" not in type(processor).__name__:
            raise ValueError(
                f"expected plain attention at {name}, got {type(processor).__name__} "
                f"{' '.join(odd)}: attention control knows Stable Diffusion 1 and 2"
            )
    state = AttentionState(control, shape)
    # set_attn_processor empties the dict it is given.
    unet.set_attn_processor({n: ControlAttnProcessor(n, p, state) for n, p in processors.items()})  # type: ignore[arg-type]
    hook = _feature_layer(unet).register_forward_hook(
        lambda _m, _i, out: state.inject_features(out)
    )  # type: ignore[arg-type]
    try:
        yield state
    finally:
        unet.set_attn_processor(dict(processors))
        hook.remove()
    if not state.calls:
        raise RuntimeError(
            f"{type(control).__name__} was never asked: the state did not attach to this UNet"
        )


def _feature_layer(unet: UNet2DConditionModel) -> nn.Module:
    """The layer whose features plug-and-play takes, midway in the decoder's first that attends."""
    block = next(each for each in unet.up_blocks if hasattr(each, "attentions"))
    return block.resnets[len(block.resnets) // 2]  # type: ignore[union-attr, index, arg-type]
