"""Attention control: what a UNet attended to in one call replaces its attention in another.

`attention_control` puts a `ControlAttnProcessor` in place of every attention processor of a UNet,
and takes it out again.  What the processors do depends on the mode of the `AttentionState` that
they share: in mode "source" they record queries, keys and values; in modes "target" and "null"
they let the control replace attention; in mode "off" they call the original processor.
`erddci.controls` has the controls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import (
    Attention as AttentionLayer,
)
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    IPAdapterAttnProcessor,
    IPAdapterAttnProcessor2_0,
    IPAdapterXFormersAttnProcessor,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from torch import Tensor, nn
from torch.compiler import set_stance

# Processors that compute the same from the same layers, each in its own way.
PLAIN = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor, XFormersAttnProcessor)

IMAGE_PROMPTED = (
    IPAdapterAttnProcessor,
    IPAdapterAttnProcessor2_0,
    IPAdapterXFormersAttnProcessor,
)

# What an attention layer of Stable Diffusion 1 and 2 has not.
ODD = ("group_norm", "spatial_norm", "norm_q", "norm_cross", "add_k_proj")


@dataclass(frozen=True)
class AttentionSite:
    """Where in a UNet an attention layer is.

    Args:
        name: diffusers' name of its processor.
        relative_size: the side of its maps, relative to the latents' side.
    """

    name: str
    relative_size: float = 1.0

    @property
    def cross(self) -> bool:
        """Whether it attends to the prompt; else it is self-attention."""
        return ".attn2." in self.name

    @property
    def decoder(self) -> bool:
        """Whether it is in the decoder, the UNet's up blocks."""
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
    """What attention control asks of a control.

    `controls_unconditional` says whether it also acts on the unconditional prediction of guidance,
    `features_until` up to which progress the decoder's features are the source's.
    """

    @property
    def controls_unconditional(self) -> bool: ...

    @property
    def features_until(self) -> float: ...

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        """Probabilities and values to use, or None for the target's own.

        Args:
            progress: of sampling, from 0 at the noise to 1 at the image.
        """
        ...


@dataclass
class AttentionState:
    """What the processors of a UNet share: mode, records of the source, and maps of the words.

    Args:
        control: what to do with the target's attention.
        shape: height and width of the latents.
        max_relative_size: largest side of the maps that `maps` averages, relative to the latents'.
        masks: those that a local blend used, one [B, 1, H, W] a step.
    """

    control: Control
    shape: tuple[int, int]
    max_relative_size: float = 0.5
    mode: str = "off"
    progress: float = 0.0
    calls: int = 0
    changed: bool = False
    memory: dict[str, Attention] = field(default_factory=dict)
    source_features: Tensor | None = None
    sums: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    masks: list[Tensor] = field(default_factory=list)

    @contextmanager
    def set(self, mode: str, progress: float = 0.0) -> Iterator[None]:
        """Run the calls of a block as "source", "target", "null" (of the target), or "off"."""
        self.mode, self.progress = mode, progress
        try:
            yield
        finally:
            self.mode = "off"

    def control_attention(self, name: str, attention: Attention) -> Controlled:
        """Record the source's attention, or let the control replace the target's."""
        site = self._site(name, attention)
        if self.mode == "source":
            self.memory[name] = attention
            if site.cross:
                self._add_maps("source", site, attention.probs)
            return None
        source = self.memory[name].repeat(len(attention.query) // len(self.memory[name].query))
        self.calls += 1
        controlled = self.control(site, source, attention, self.progress)
        if site.cross and self.mode == "target":  # a null prompt has other words
            probs = attention.probs if controlled is None else controlled[0]
            self._add_maps("target", site, probs)
        if controlled is not None and not self.changed:
            own = attention.probs, attention.value
            self.changed = not all(map(torch.equal, controlled, own))
        return controlled

    def inject_features(self, features: Tensor) -> Tensor:
        """Record the source's features, or put them in place of the target's."""
        if self.mode == "source":
            self.source_features = features
        own = self.mode not in ("target", "null")
        if own or self.source_features is None or self.progress >= self.control.features_until:
            return features
        self.changed = True
        return self.source_features.repeat(len(features) // len(self.source_features), 1, 1, 1)

    def maps(self, whose: str) -> Tensor:
        """Mean cross-attention so far [B, L, H, W] of "source" or "target", one map a token.

        Raises:
            ValueError: no call was made yet.
        """
        if whose not in self.sums:
            raise ValueError(f"expected a call in mode {whose!r} before its maps are read")
        total, count = self.sums[whose]
        return total / count

    def _site(self, name: str, attention: Attention) -> AttentionSite:
        height, width = self.shape
        return AttentionSite(name, (attention.query.shape[2] / (height * width)) ** 0.5)

    def _add_maps(self, whose: str, site: AttentionSite, probs: Tensor) -> None:
        if site.relative_size > self.max_relative_size:
            return
        height, width = (round(side * site.relative_size) for side in self.shape)
        maps = probs.mean(1).mT.reshape(len(probs), -1, height, width)
        maps = F.interpolate(maps.float(), self.shape, mode="bilinear")
        total, count = self.sums.get(whose, (torch.zeros_like(maps), 0))
        self.sums[whose] = (total + maps, count + 1)


@dataclass
class ControlAttnProcessor:
    """Attention processor that records or replaces attention as its state says."""

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
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # type: ignore[misc]
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, words), (attn.to_v, words))
        )
        attention = Attention(query, key, value, attn.scale)
        controlled = self.state.control_attention(self.name, attention)
        if controlled is None:
            attended = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        else:
            probs, value = controlled
            attended = probs @ value
        attended = attended.transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](attended))  # type: ignore[index]
        return (out + hidden_states * attn.residual_connection) / attn.rescale_output_factor


@contextmanager
def attention_control(
    unet: UNet2DConditionModel | None, control: Control, shape: tuple[int, int]
) -> Iterator[AttentionState]:
    """Control all attention of a UNet while the block runs; afterwards it is as it was.

    A compiled UNet runs uncompiled meanwhile.

    Args:
        shape: height and width of the latents.

    Raises:
        ValueError: a network without cross-attention, with attention of another kind, or whose
            attention is controlled already.
        RuntimeError: the block ended and the control was never called.
    """
    processors = _check_processors(unet)
    assert unet is not None
    state = AttentionState(control, shape)

    def inject(_module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
        return state.inject_features(features)

    # Compiled code has the processors and hooks that were there when it was compiled.
    with set_stance("force_eager"), ExitStack() as stack:
        # set_attn_processor empties the dict that it is given.
        stack.callback(unet.set_attn_processor, dict(processors))
        unet.set_attn_processor(
            {n: ControlAttnProcessor(n, p, state) for n, p in processors.items()}  # type: ignore[arg-type]
        )
        if control.features_until > 0:
            stack.callback(_feature_layer(unet).register_forward_hook(inject).remove)
        yield state
    if not state.calls:
        raise RuntimeError(
            f"{type(control).__name__} was never called: no attention of this UNet was reached"
        )


def _check_processors(unet: UNet2DConditionModel | None) -> dict:
    """The attention processors of a UNet, if all compute plain attention."""
    processors = getattr(unet, "attn_processors", {})
    if unet is None or not any(AttentionSite(name).cross for name in processors):
        raise ValueError(
            f"expected a UNet with cross-attention, got {type(unet).__name__} without: "
            "attention control needs one, edit with control=None"
        )
    for name, processor in processors.items():
        layer = unet.get_submodule(name.removesuffix(".processor"))
        odd = [each for each in ODD if getattr(layer, each, None)]
        if odd:
            raise ValueError(
                f"expected plain attention at {name}, got {' '.join(odd)}: attention control "
                "knows Stable Diffusion 1 and 2, edit with control=None"
            )
        if type(processor) not in PLAIN:
            raise ValueError(
                f"expected plain attention at {name}, got {type(processor).__name__}: "
                f"{_remedy(processor)}"
            )
    return processors


def _remedy(processor: object) -> str:
    """What to do about an attention processor that attention control does not know."""
    if isinstance(processor, ControlAttnProcessor):
        return "it is controlled already, leave that attention_control first"
    if isinstance(processor, FusedAttnProcessor2_0):
        return "call unet.unfuse_qkv_projections() first"
    if isinstance(processor, IMAGE_PROMPTED):
        return "call unload_ip_adapter() of its pipeline first"
    return "call unet.set_attn_processor(AttnProcessor2_0()) first, which computes plain attention"


def _feature_layer(unet: UNet2DConditionModel) -> nn.Module:
    """The middle ResNet of the first up block with attention; plug-and-play takes its features."""
    block = next((each for each in unet.up_blocks if hasattr(each, "attentions")), None)
    if block is None:
        raise ValueError(
            "expected a UNet with attention in its up blocks, got none: its features "
            "cannot be taken, use another control than plug-and-play"
        )
    return block.resnets[len(block.resnets) // 2]  # type: ignore[union-attr, index, arg-type]
