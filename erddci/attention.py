"""Attention control: one call of a UNet lets its attention steer another call.

`attached` puts a `Tap` in place of every attention processor of a UNet, and takes it out again.
What a tap does depends on the mode of its `Taps`: in mode "source" it remembers queries, keys and
values, in modes "target" and "null" it asks the control what to do with them, and otherwise it is
not there.
A control is a small object, called as ``control(site, source, target, done)``, that returns the
attention probabilities and the values to use, or None to leave an attention as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention as AttentionLayer
from torch import Tensor, nn
from transformers import CLIPTokenizer

from erddci.words import Alignment, align, changes


@dataclass(frozen=True)
class Site:
    """Where in a UNet an attention sits.

    Args:
        name: diffusers' name of its processor.
        share: the side of its maps as a share of the latent's side.
    """

    name: str
    share: float = 1.0

    @property
    def cross(self) -> bool:
        """Whether it attends to the prompt; else it attends to the picture itself."""
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


Steered = tuple[Tensor, Tensor] | None


class Control(Protocol):
    """What may be asked of a control.

    `both` says whether it also steers the unconditional rows of guidance, `features` until which
    share of the walk the decoder's features are the source's.
    """

    @property
    def both(self) -> bool: ...

    @property
    def features(self) -> float: ...

    def __call__(self, site: Site, source: Attention, target: Attention, done: float) -> Steered:
        """Probabilities and values to use; `done` is the share of the walk that is behind us."""
        ...


@dataclass(frozen=True)
class Store:
    """Changes nothing: for looking at attention maps, and for tests."""

    both: bool = False
    features: float = 0.0

    def __call__(self, site: Site, source: Attention, target: Attention, done: float) -> Steered:
        return target.probs, target.value


@dataclass(frozen=True)
class PromptToPrompt:
    """Prompt-to-prompt: words that both prompts have look where they looked in the source.

    Args:
        words: from `erddci.words.align`; its kind decides between replacement and refinement,
            its weights reweight.
        cross: until which share of the walk cross-attention is the source's.
        itself: until which share self-attention is the source's.
        largest: largest side of the self-attention maps that are taken over, as a share of the
            latent's side.

    Source: prompt-to-prompt (Hertz et al. 2022, 2208.01626), algorithm 1 and section 3.2.
    """

    words: Alignment
    cross: float = 0.8
    itself: float = 0.4
    largest: float = 0.5
    both: bool = False
    features: float = 0.0

    def __call__(self, site: Site, source: Attention, target: Attention, done: float) -> Steered:
        if not site.cross:
            early = done < self.itself and site.share <= self.largest
            return (source.probs, target.value) if early else None
        probs, words = target.probs, self.words
        if done < self.cross:
            keeps = words.keeps.to(probs)[:, None, None]
            taken = source.probs @ words.answers.to(probs).mT[:, None]
            probs = keeps * taken + (1 - keeps) * probs
        return probs * words.weights.to(probs)[:, None, None], target.value


@dataclass(frozen=True)
class MasaCtrl:
    """Mutual self-attention: target queries look at the source's keys and values.

    Args:
        start: the share of the walk from which on the decoder does so.

    Source: MasaCtrl (Cao et al. 2023, 2304.08465), section 4.1.
    """

    start: float = 0.1
    both: bool = True
    features: float = 0.0

    def __call__(self, site: Site, source: Attention, target: Attention, done: float) -> Steered:
        if site.cross or not site.decoder or done < self.start:
            return None
        mutual = Attention(target.query, source.key, source.value, target.scale)
        return mutual.probs, mutual.value


@dataclass(frozen=True)
class PlugAndPlay:
    """Plug-and-play: the decoder's self-attention, and features of one layer, are the source's.

    Args:
        itself: until which share of the walk self-attention is the source's.
        features: until which share the features are.

    Source: plug-and-play diffusion features (Tumanyan et al. 2022, 2211.12572), section 4.
    """

    itself: float = 0.5
    features: float = 0.8
    both: bool = True

    def __call__(self, site: Site, source: Attention, target: Attention, done: float) -> Steered:
        early = site.decoder and not site.cross and done < self.itself
        return (source.probs, target.value) if early else None


CONTROLS = ("none", "refine", "replace", "masactrl", "plug-and-play")


def control_for(
    name: str,
    tokenizer: CLIPTokenizer,
    sources: Sequence[str],
    targets: Sequence[str],
    cross: float = 0.4,
    itself: float = 0.2,
    weights: Mapping[str, float] | None = None,
) -> Control | None:
    """One of `CONTROLS` for some prompts, each with its target.

    Args:
        cross, itself: until which share of the walk attention is the source's.
        weights: words of the targets to reweight, with their factors; prompt-to-prompt's alone.

    Raises:
        ValueError: an unknown control, or a word that no target has.
    """
    if name in ("refine", "replace"):
        return PromptToPrompt(align(tokenizer, sources, targets, name, weights), cross, itself)
    others = {"none": None, "masactrl": MasaCtrl(), "plug-and-play": PlugAndPlay(itself, cross)}
    if name not in others:
        raise ValueError(f"unknown control {name!r}: expected one of {', '.join(CONTROLS)}")
    return others[name]


@dataclass
class Taps:
    """What the taps of a UNet share: mode, memory of the source's call, and maps of the words.

    Args:
        control: what to do with the target's attention.
        shape: height and width of the latents.
        largest: largest side of the maps that `maps` gathers, as a share of the latent's side.
    """

    control: Control
    shape: tuple[int, int]
    largest: float = 0.5
    mode: str = "off"
    done: float = 0.0
    asked: int = 0
    changed: bool = False
    memory: dict[str, Attention] = field(default_factory=dict)
    drawn: Tensor | None = None  # features of the source
    sums: dict[str, list] = field(default_factory=dict)

    @contextmanager
    def set(self, mode: str, done: float = 0.0) -> Iterator[None]:
        """Run the calls of a block as "source", "target", "null" (of the target), or "off"."""
        self.mode, self.done = mode, done
        try:
            yield
        finally:
            self.mode = "off"

    def steer(self, name: str, attention: Attention) -> Steered:
        """Remember the source's attention, or let the control have the target's."""
        site = self._site(name, attention)
        if self.mode == "source":
            self.memory[name] = attention
            self._gather("source", site, attention.probs) if site.cross else None
            return None
        source = self.memory[name].repeat(len(attention.query) // len(self.memory[name].query))
        self.asked += 1
        steered = self.control(site, source, attention, self.done)
        if site.cross and self.mode == "target":  # a null prompt has other words
            self._gather("target", site, steered[0] if steered else attention.probs)
        if steered and not self.changed:
            pairs = zip(steered, (attention.probs, attention.value), strict=True)
            self.changed = not all(torch.equal(used, own) for used, own in pairs)
        return steered

    def redraw(self, features: Tensor) -> Tensor:
        """Remember the source's features, or put them in place of the target's."""
        if self.mode == "source":
            self.drawn = features
        steered, drawn = self.mode in ("target", "null"), self.drawn
        if not steered or drawn is None or self.done >= self.control.features:
            return features
        self.changed = True
        return drawn.repeat(len(features) // len(drawn), 1, 1, 1)

    def maps(self, whose: str) -> Tensor:
        """Mean cross-attention so far [B, L, H, W] of "source" or "target", one map a token.

        Raises:
            ValueError: no call was made yet.
        """
        if whose not in self.sums:
            raise ValueError(f"expected a call in mode {whose!r} before its maps are looked at")
        total, count = self.sums[whose]
        return total / count

    def _site(self, name: str, attention: Attention) -> Site:
        height, width = self.shape
        return Site(name, (attention.query.shape[2] / (height * width)) ** 0.5)

    def _gather(self, whose: str, site: Site, probs: Tensor) -> None:
        if site.share > self.largest:
            return
        side = [round(each * site.share) for each in self.shape]
        maps = probs.mean(1).mT.reshape(len(probs), -1, *side)
        maps = F.interpolate(maps.float(), self.shape, mode="bilinear")
        total, count = self.sums.get(whose, (0, 0))
        self.sums[whose] = [total + maps, count + 1]


@dataclass
class Tap:
    """An attention processor that lets `Taps` have their say."""

    name: str
    before: object
    taps: Taps

    def __call__(
        self,
        attn: AttentionLayer,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *others: object,
        **more: object,
    ) -> Tensor:
        if self.taps.mode == "off":
            return self.before(attn, hidden_states, encoder_hidden_states, *others, **more)  # type: ignore[operator]
        words = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        layers = ((attn.to_q, hidden_states), (attn.to_k, words), (attn.to_v, words))
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # type: ignore[misc]
            for layer, x in layers
        )
        attention = Attention(query, key, value, attn.scale)
        steered = self.taps.steer(self.name, attention)
        if steered:
            probs, value = steered
            seen = probs @ value
        else:
            parts = attention.query, attention.key, attention.value
            seen = F.scaled_dot_product_attention(*parts, scale=attn.scale)
        seen = seen.transpose(1, 2).flatten(2)
        out = attn.to_out[1](attn.to_out[0](seen))  # type: ignore[index]
        return (out + hidden_states * attn.residual_connection) / attn.rescale_output_factor


@contextmanager
def attached(
    unet: UNet2DConditionModel | None, control: Control, shape: tuple[int, int]
) -> Iterator[Taps]:
    """Tap all attention of a UNet while the block runs; afterwards it is as it was.

    Args:
        shape: height and width of the latents.

    Raises:
        ValueError: a network without cross-attention, or with attention of another kind.
        RuntimeError: the block ended and the control was never asked.
    """
    processors = getattr(unet, "attn_processors", {})
    if not any(Site(name).cross for name in processors):
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
    taps = Taps(control, shape)
    # set_attn_processor empties the dict it is given.
    unet.set_attn_processor({n: Tap(n, p, taps) for n, p in processors.items()})  # type: ignore[arg-type]
    hook = _drawing(unet).register_forward_hook(lambda _m, _i, out: taps.redraw(out))  # type: ignore[arg-type]
    try:
        yield taps
    finally:
        unet.set_attn_processor(dict(processors))
        hook.remove()
    if not taps.asked:
        raise RuntimeError(
            f"{type(control).__name__} was never asked: the taps did not attach to this UNet"
        )


def _drawing(unet: UNet2DConditionModel) -> nn.Module:
    """The layer whose features plug-and-play takes, midway in the decoder's first that attends."""
    block = next(each for each in unet.up_blocks if hasattr(each, "attentions"))
    return block.resnets[len(block.resnets) // 2]  # type: ignore[union-attr, index, arg-type]


@dataclass(frozen=True)
class Blend:
    """Local blend: outside of where some words look, the target is put back on the source.

    Args:
        source, target: marks of the words in the prompts [B, L], from `erddci.words.mask`.
        threshold: share of a map's maximum above which it counts.
        start: the share of the walk from which on it blends.

    Source: prompt-to-prompt (Hertz et al. 2022, 2208.01626), section 4, as its code has it.
    """

    source: Tensor
    target: Tensor
    threshold: float = 0.3
    start: float = 0.2

    @classmethod
    def of_changes(
        cls,
        tokenizer: CLIPTokenizer,
        sources: Sequence[str],
        targets: Sequence[str],
        threshold: float = 0.3,
        start: float = 0.2,
    ) -> Blend:
        """A blend by the words that differ between each source prompt and its target prompt.

        Raises:
            ValueError: prompts that do not differ.
        """
        pairs = list(zip(sources, targets, strict=True))
        marks = [changes(tokenizer, source, target) for source, target in pairs]
        for (source, _), (left, right) in zip(pairs, marks, strict=True):
            if not (left.any() or right.any()):
                raise ValueError(f"expected prompts that differ, got “{source}” twice")
        left, right = (torch.stack(each) for each in zip(*marks, strict=True))
        return cls(left, right, threshold, start)

    def mask(self, taps: Taps) -> Tensor:
        """Where the words of either prompt look [B, 1, H, W] of 0 and 1."""
        seen = [self._seen(taps.maps("target"), self.target)]
        source = taps.maps("source")
        source = source.repeat(len(seen[0]) // len(source), 1, 1, 1)
        seen.append(self._seen(source, self.source))
        return torch.maximum(*seen)

    def _seen(self, maps: Tensor, marks: Tensor) -> Tensor:
        marks = marks.to(maps)[:, :, None, None]
        near = F.max_pool2d((maps * marks).sum(1, keepdim=True), 3, stride=1, padding=1)
        highest = near.amax((2, 3), keepdim=True)
        return ((near > self.threshold * highest) & (highest > 0)).to(maps)
