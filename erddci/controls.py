"""What attention control does: prompt-to-prompt, MasaCtrl, plug-and-play, and local blending.

A control is a small object, called as ``control(site, source, target, progress)``, that returns
the attention probabilities and values to use, or None for the target's own.  `progress` goes from
0 at the noise to 1 at the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from erddci.attention import Attention, AttentionSite, AttentionState, Control, Controlled
from erddci.prompts import Alignment, align, changed_tokens
from erddci.registry import unknown


@dataclass(frozen=True)
class AttentionStore:
    """Changes nothing: for reading attention maps, and for tests."""

    controls_unconditional: bool = False
    features_until: float = 0.0

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        return target.probs, target.value


@dataclass(frozen=True)
class PromptToPrompt:
    """Prompt-to-prompt: words that both prompts have attend where they did in the source.

    Args:
        words: from `erddci.prompts.align`; its kind decides between replacement and refinement,
            its weights reweight.
        cross_until: progress up to which cross-attention is the source's.
        self_until: progress up to which self-attention is the source's.
        max_relative_size: largest side of the self-attention maps that are injected, relative to
            the latents'.

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
            inject = progress < self.self_until and site.relative_size <= self.max_relative_size
            return (source.probs, target.value) if inject else None
        probs = target.probs
        if progress < self.cross_until:
            mapped = self.words.mapped.to(probs)[:, None, None]
            injected = source.probs @ self.words.mapping.to(probs).mT[:, None]
            probs = mapped * injected + (1 - mapped) * probs
        return probs * self.words.weights.to(probs)[:, None, None], target.value


@dataclass(frozen=True)
class MasaCtrl:
    """Mutual self-attention: the target's queries attend to the source's keys and values.

    Args:
        start: progress from which on the decoder does so.

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
        self_until: progress up to which self-attention is the source's.
        features_until: progress up to which the features are.

    Source: plug-and-play diffusion features (Tumanyan et al. 2022, 2211.12572), section 4.
    """

    self_until: float = 0.5
    features_until: float = 0.8
    controls_unconditional: bool = True

    def __call__(
        self, site: AttentionSite, source: Attention, target: Attention, progress: float
    ) -> Controlled:
        inject = site.decoder and not site.cross and progress < self.self_until
        return (source.probs, target.value) if inject else None


CONTROLS = ("none", "refine", "replace", "masactrl", "plug-and-play")

# Those that read how long cross- and self-attention are the source's.
INJECTING = ("refine", "replace", "plug-and-play")


def make_control(
    name: str,
    tokenizer: CLIPTokenizer,
    sources: Sequence[str],
    targets: Sequence[str],
    cross_until: float = 0.4,
    self_until: float = 0.2,
) -> Control | None:
    """Make one of `CONTROLS` for some source prompts and their target prompts.

    Args:
        cross_until, self_until: progress up to which attention is the source's; for
            plug-and-play, features and self-attention.

    Raises:
        ValueError: an unknown control.
    """
    if name in ("refine", "replace"):
        words = align(tokenizer, sources, targets, name)
        return PromptToPrompt(words, cross_until, self_until)
    if name == "plug-and-play":
        return PlugAndPlay(self_until, cross_until)
    if name == "masactrl":
        return MasaCtrl()
    if name == "none":
        return None
    raise unknown(name, CONTROLS, "control")


@dataclass(frozen=True)
class LocalBlend:
    """Local blend: away from where some words attend, the target is put back on the source.

    Args:
        source, target: marks of the words in the prompts [B, L], from `erddci.prompts.token_mask`.
        threshold: share of a map's maximum above which it counts.
        start: progress from which on it blends.

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
        """Blend by the words that differ between each source prompt and its target prompt.

        Raises:
            ValueError: prompts that do not differ.
        """
        pairs = list(zip(sources, targets, strict=True))
        marks = [changed_tokens(tokenizer, source, target) for source, target in pairs]
        for (source, _), (removed, added) in zip(pairs, marks, strict=True):
            if not (removed.any() or added.any()):
                raise ValueError(f"expected prompts that differ, got “{source}” twice")
        removed, added = (torch.stack(each) for each in zip(*marks, strict=True))
        return cls(removed, added, threshold, start)

    def mask(self, state: AttentionState) -> Tensor:
        """Where the words of either prompt attend [B, 1, H, W] of 0 and 1."""
        target = self._attended(state.maps("target"), self.target)
        source = state.maps("source")
        source = source.repeat(len(target) // len(source), 1, 1, 1)
        return torch.maximum(target, self._attended(source, self.source))

    def _attended(self, maps: Tensor, marks: Tensor) -> Tensor:
        marks = marks.to(maps)[:, :, None, None]
        near = F.max_pool2d((maps * marks).sum(1, keepdim=True), 3, stride=1, padding=1)
        highest = near.amax((2, 3), keepdim=True)
        return ((near > self.threshold * highest) & (highest > 0)).to(maps)
