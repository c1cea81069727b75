"""Words and tokens of prompts, and how two prompts align.

A CLIP tokenizer cuts a prompt into tokens, some words into several; the last token of a word ends
in "</w>".  Attention maps have one channel a token, so every control that speaks of words needs
to know which channels are whose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer


@dataclass(frozen=True)
class Alignment:
    """Which tokens of target prompts correspond to which of the source prompts.

    Args:
        mapping: share of each source token in each target token [B, L target, L source].
        mapped: 1 for target tokens that correspond to some of the source, else 0 [B, L].
        weights: factors of the attention to each target token [B, L].
    """

    mapping: Tensor
    mapped: Tensor
    weights: Tensor


def words_of(tokenizer: CLIPTokenizer, prompt: str) -> dict[int, tuple[str, list[int]]]:
    """The words of a prompt in order, each with the places of its tokens; place 0 is the start.

    Punctuation marks count as words, and so does what the tokenizer does not know.
    """
    found: dict[int, tuple[str, list[int]]] = {}
    word, places = "", []
    for place, token in enumerate(tokenizer.tokenize(prompt), 1):
        places.append(place)
        word += token.removesuffix("</w>")
        if token.endswith("</w>") or token == tokenizer.unk_token:
            found[len(found)] = (word, places)
            word, places = "", []
    return found


def token_mask(tokenizer: CLIPTokenizer, prompt: str, chosen: Iterable[str]) -> Tensor:
    """Mark the tokens of some words of a prompt, wherever they occur: [L] of 0 and 1.

    Raises:
        ValueError: a word that is not in the prompt.
    """
    chosen = [word.lower() for word in chosen]
    words, marks = words_of(tokenizer, prompt), torch.zeros(tokenizer.model_max_length)
    known = [word for word, _ in words.values()]
    missing = [word for word in chosen if word not in known]
    if missing:
        raise _unknown_word(missing[0], prompt, known)
    for word, places in words.values():
        if word in chosen:
            marks[places] = 1
    return marks


def changed_tokens(tokenizer: CLIPTokenizer, source: str, target: str) -> tuple[Tensor, Tensor]:
    """Mark the tokens that a target prompt removes or replaces, and those that it adds.

    Returns:
        marks in the source and in the target, [L] of 0 and 1 each.
    """
    before, after = (list(words_of(tokenizer, p).values()) for p in (source, target))
    left, right = torch.zeros(2, tokenizer.model_max_length)
    for kind, i, j, k, m in _blocks([w for w, _ in before], [w for w, _ in after]):
        if kind != "equal":
            for _, places in before[i:j]:
                left[places] = 1
            for _, places in after[k:m]:
                right[places] = 1
    return left, right


def word_maps(
    tokenizer: CLIPTokenizer, prompt: str, maps: Tensor, chosen: Iterable[str] | None = None
) -> list[tuple[str, np.ndarray]]:
    """Where the words of a prompt attend, in order: of each the sum of its tokens' maps [H, W].

    Args:
        maps: one map a token [1, L, H, W], from `erddci.attention.AttentionState.maps`.
        chosen: words to keep, wherever they occur; all by default.
    """
    words = list(words_of(tokenizer, prompt).values())
    if chosen is not None:
        chosen = set(chosen)
        words = [(word, places) for word, places in words if word in chosen]
    return [(word, maps[0, places].sum(0).cpu().numpy()) for word, places in words]


def align(
    tokenizer: CLIPTokenizer,
    sources: Sequence[str],
    targets: Sequence[str],
    kind: str = "refine",
    weights: Mapping[str, float] | None = None,
) -> Alignment:
    """Align each target prompt with its source prompt, word by word.

    Equal words correspond.  Where words were replaced, "replace" maps the new ones to the old
    ones, whose attention they take; "refine" leaves new words their own.

    Args:
        sources, targets: as many prompts each.
        kind: "replace" or "refine".
        weights: words of the targets whose attention is to be scaled, with the factors.

    Raises:
        ValueError: another kind, or a word that none of the targets has.
    Source: prompt-to-prompt (Hertz et al. 2022, 2208.01626), section 3.2; the alignment itself is
    that of Python's difflib.
    """
    if kind not in ("replace", "refine"):
        raise ValueError(f"expected kind to be 'replace' or 'refine', got {kind!r}")
    pairs = list(zip(sources, targets, strict=True))
    parts = [_align(tokenizer, source, target, kind) for source, target in pairs]
    mapping, mapped = (torch.stack(each) for each in zip(*parts, strict=True))
    factors = torch.ones_like(mapped)
    for word, factor in (weights or {}).items():
        # A word may be in some prompts of a batch alone.
        having = [n for n, t in enumerate(targets) if word.lower() in _names(tokenizer, t)]
        if not having:
            raise _unknown_word(word, targets[0], _names(tokenizer, targets[0]))
        for n in having:
            factors[n] *= 1 + (factor - 1) * token_mask(tokenizer, targets[n], [word])
    return Alignment(mapping, mapped, factors)


def _align(tokenizer: CLIPTokenizer, source: str, target: str, kind: str) -> tuple[Tensor, Tensor]:
    """Mapping [L, L] and mapped [L] of one pair of prompts."""
    before, after = (list(words_of(tokenizer, prompt).values()) for prompt in (source, target))
    length = tokenizer.model_max_length
    mapping, mapped = torch.zeros(length, length), torch.zeros(length)
    for tag, i, j, k, m in _blocks([w for w, _ in before], [w for w, _ in after]):
        if tag == "equal" or (tag == "replace" and kind == "replace"):
            old, new = before[i:j], after[k:m]
            if len(old) != len(new):  # then they correspond as one
                old, new = ([("", [p for _, places in e for p in places])] for e in (old, new))
            for (_, of), (_, places) in zip(old, new, strict=True):
                if len(of) == len(places):
                    mapping[places, of] = 1
                else:  # the new tokens share what the old ones attend to
                    mapping[torch.tensor(places)[:, None], of] = 1 / len(places)
                mapped[places] = 1
    # Start corresponds to start, the end and its padding to the source's in order.
    ends = [1 + sum(len(places) for _, places in words) for words in (before, after)]
    mapping[0, 0] = mapped[0] = 1
    for place in range(ends[1], length):
        mapping[place, min(ends[0] + place - ends[1], length - 1)] = mapped[place] = 1
    return mapping, mapped


def _blocks(before: list[str], after: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, before, after, autojunk=False).get_opcodes()


def _names(tokenizer: CLIPTokenizer, prompt: str) -> list[str]:
    return [word for word, _ in words_of(tokenizer, prompt).values()]


def _unknown_word(word: str, prompt: str, known: Sequence[str]) -> ValueError:
    expected = ", ".join(known)
    return ValueError(f"“{word}” is not a word of “{prompt}”: expected some of {expected}")
