"""What attention control does: prompt-to-prompt, MasaCtrl, plug-and-play, and local blending.

A control is a small object, called as ``control(site, source, target, progress)``, that returns the
attention probabilities and the values to use, or None to leave an attention as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from erddci.attention import Attention, AttentionSite, AttentionState, Control, Controlled
from erddci.prompts import Alignment, align, changed_tokens


@dataclass(frozen=True)
class AttentionStore:
    """Changes nothing: for looking at attention maps, and for tests."""

    controls_unconditional: bool = False
    features_until: float = 0.0

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        return target.probs, target.value


@dataclass(frozen=True)
class PromptToPrompt:
    """Prompt-to-prompt: words that both prompts have look where they looked in the source.

    Args:
        words: from `erddci.prompts.align`; its kind decides between replacement and refinement,
            its weights reweight.
        cross: until which share of the walk cross-attention is the source's.
        self_until: until which share self-attention is the source's.
        max_relative_size: largest side of the self-attention maps that are taken over, as a share of the
            latent's side.

    Source: prompt-to-prompt (Hertz et al. 2022, 2208.01626), algorithm 1 and section 3.2.
    """

    words: Alignment
    cross_until: float = 0.8
    self_until: float = 0.4
    max_relative_size: float = 0.5
    controls_unconditional: bool = False
    features_until: float = 0.0

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        if not site.cross:
            early = progress < self.self_until and site.relative_size <= self.max_relative_size
            return (source.probs, target.value) if early else None
        probs, words = target.probs, self.words
        if progress < self.cross_until:
            mapped = words.mapped.to(probs)[:, None, None]
            taken = source.probs @ words.mapping.to(probs).mT[:, None]
            probs = mapped * taken + (1 - mapped) * probs
        return probs * words.weights.to(probs)[:, None, None], target.value


@dataclass(frozen=True)
class MasaCtrl:
    """Mutual self-attention: target queries look at the source's keys and values.

    Args:
        start: the share of the walk from which on the decoder does so.

    Source: MasaCtrl (Cao et al. 2023, 2304.08465), section 4.1.
    """

    start: float = 0.1
    controls_unconditional: bool = True
    features_until: float = 0.0

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        if site.cross or not site.decoder or progress < self.start:
            return None
        mutual = Attention(target.query, source.key, source.value, target.scale)
        return mutual.probs, mutual.value


@dataclass(frozen=True)
class PlugAndPlay:
    """Plug-and-play: the decoder's self-attention, and features of one layer, are the source's.

    Args:
        self_until: until which share of the walk self-attention is the source's.
        features_until: until which share the features are.

    Source: plug-and-play diffusion features (Tumanyan et al. 2022, 2211.12572), section 4.
    """

    self_until: float = 0.5
    features_until: float = 0.8
    controls_unconditional: bool = True

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        early = site.decoder and not site.cross and progress < self.self_until
        return (source.probs, target.value) if early else None


CONTROLS = ("none", "refine", "replace", "masactrl", "plug-and-play")


def make_control(
    name: str,
    tokenizer: CLIPTokenizer,
    sources: Sequence[str],
    targets: Sequence[str],
    cross_until: float = 0.4,
    self_until: float = 0.2,
    weights: Mapping[str, float] | None = None,
) -> Control | None:
    """One of `CONTROLS` for some prompts, each with its target.

    Args:
        cross, self_until: until which share of the walk attention is the source's.
        weights: words of the targets to reweight, with their factors; prompt-to-prompt's alone.

    Raises:
        ValueError: an unknown control, or a word that no target has.
    """
    if name in ("refine", "replace"):
        return PromptToPrompt(
            align(tokenizer, sources, targets, name, weights), cross_until, self_until
        )
    others = {
        "none": None,
        "masactrl": MasaCtrl(),
        "plug-and-play": PlugAndPlay(self_until, cross_until),
    }
    if name not in others:
        raise ValueError(f"unknown control {name!r}: expected one of {', '.join(CONTROLS)}")
    return others[name]


@dataclass(frozen=True)
class LocalBlend:
    """Local blend: outside of where some words look, the target is put back on the source.

    Args:
        source, target: marks of the words in the prompts [B, L], from `erddci.prompts.token_mask`.
        threshold: share of a map's maximum above which it counts.
        start: the share of the walk from which on it blends.

    Source: prompt-to-prompt (Hertz et al. 2022, 2208.01626), section 4, as its code has it.
    """

    source: Tensor
    target: Tensor
    threshold: float = 0.3
    start: float = 0.2

    @classmethod
    def from_prompts(
        cls,
        tokenizer: CLIPTokenizer,
        sources: Sequence[str],
        targets: Sequence[str],
        threshold: float = 0.3,
        start: float = 0.2,
    ) -> LocalBlend:
        """A blend by the words that differ between each source prompt and its target prompt.

        Raises:
            ValueError: prompts that do not differ.
        """
        pairs = list(zip(sources, targets, strict=True))
        marks = [changed_tokens(tokenizer, source, target) for source, target in pairs]
        for (source, _), (left, right) in zip(pairs, marks, strict=True):
            if not (left.any() or right.any()):
                raise ValueError(f"expected prompts that differ, got “{source}” twice")
        left, right = (torch.stack(each) for each in zip(*marks, strict=True))
        return cls(left, right, threshold, start)

    def mask(self, state: AttentionState) -> Tensor:
        """Where the words of either prompt look [B, 1, H, W] of 0 and 1."""
        seen = [self._seen(state.maps("target"), self.target)]
        source = state.maps("source")
        source = source.repeat(len(seen[0]) // len(source), 1, 1, 1)
        seen.append(self._seen(source, self.source))
        return torch.maximum(*seen)

    def _seen(self, maps: Tensor, marks: Tensor) -> Tensor:
        marks = marks.to(maps)[:, :, None, None]
        near = F.max_pool2d((maps * marks).sum(1, keepdim=True), 3, stride=1, padding=1)
        highest = near.amax((2, 3), keepdim=True)
        return ((near > self.threshold * highest) & (highest > 0)).to(maps)
