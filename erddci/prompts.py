"""Words and tokens of prompts, and how two prompts align.

A CLIP tokenizer normalises a prompt, splits it into words, and cuts each word into tokens: pieces
of its UTF-8 bytes.  Attention maps have one channel a token, so every control that speaks of words
needs to know which channels are whose.  Words are those of the tokenizer: it splits "cat's" into
"cat" and "'s", and "42" into "4" and "2".  Whoever names a word may name several at once, so
"cat's", "42" and "left-handed" are found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from erddci.notices import notify

# Words by their number in a prompt, each with the places of its tokens.
Words = Mapping[int, tuple[str, list[int]]]


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

    Words are as the tokenizer normalises them: in lower case, accents composed.  Punctuation marks
    and added tokens (textual inversion) are words of their own.

    Raises:
        ValueError: a prompt with more tokens than the text encoder takes.
    """
    prompt = normalize("NFC", prompt)
    tokens = enumerate(_tokens(tokenizer, prompt), 1)
    words = [list(group) for _, group in groupby(tokens, lambda each: each[1].word)]
    found = {}
    for number, word in enumerate(words):
        text = _text(tokenizer, prompt, [token for _, token in word])
        found[number] = (text, [place for place, _ in word])
    return found


def check_prompt(tokenizer: CLIPTokenizer, prompt: str, embeddings: int) -> None:
    """Refuse a prompt that the text encoder cannot read, and say what of it has no effect.

    Args:
        embeddings: how many tokens the text encoder has embeddings for.

    Raises:
        ValueError: more tokens than the text encoder takes, words that the embedded model was not
            trained on, or an added token without an embedding.
    """
    prompt = normalize("NFC", prompt)
    tokens = _tokens(tokenizer, prompt)
    _check_trained(tokenizer, prompt)
    for token in tokens:
        if token.number >= embeddings:
            raise ValueError(
                f"expected an embedding for “{prompt[token.start : token.stop]}”: the tokenizer "
                f"has {len(tokenizer)} tokens, the text encoder {embeddings}: call "
                "text_encoder.resize_token_embeddings(len(tokenizer)) and set its row"
            )
    _say_unknown(prompt, tokens)
    _say_partial(tokenizer, prompt, tokens)


def token_mask(tokenizer: CLIPTokenizer, prompt: str, chosen: Iterable[str]) -> Tensor:
    """Mark the tokens of some words of a prompt, wherever they occur: [L] of 0 and 1.

    Args:
        chosen: words, or several in a row as one ("cat's", "red cube"), in any case.

    Raises:
        ValueError: a word that is not in the prompt.
    """
    words, marks = words_of(tokenizer, prompt), torch.zeros(tokenizer.model_max_length)
    for name in chosen:
        numbers = _occurrences(tokenizer, words, name)
        if not numbers:
            raise _unknown_word(name, prompt, words)
        for number in numbers:
            marks[words[number][1]] = 1
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
    words = words_of(tokenizer, prompt)
    if chosen is not None:
        kept = {number for name in chosen for number in _occurrences(tokenizer, words, name)}
        words = {number: word for number, word in words.items() if number in kept}
    return [(word, maps[0, places].sum(0).cpu().numpy()) for word, places in words.values()]


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
        weights: words of the targets whose attention is to be scaled, as `token_mask` finds them,
            with the factors; those of a token that is named twice multiply.

    Raises:
        ValueError: another kind, a word that none of the targets has, or a factor that is not
            finite.
    Source: prompt-to-prompt (Hertz et al. 2022, 2208.01626), section 3.2; the alignment itself is
    that of Python's difflib.
    """
    if kind not in ("replace", "refine"):
        raise ValueError(f"expected kind to be 'replace' or 'refine', got {kind!r}")
    pairs = list(zip(sources, targets, strict=True))
    parts = [_align(tokenizer, source, target, kind) for source, target in pairs]
    mapping, mapped = (torch.stack(each) for each in zip(*parts, strict=True))
    return Alignment(mapping, mapped, _factors(tokenizer, targets, weights or {}))


def _factors(
    tokenizer: CLIPTokenizer, targets: Sequence[str], weights: Mapping[str, float]
) -> Tensor:
    """Factors of the attention to each token of the targets [B, L]."""
    factors = torch.ones(len(targets), tokenizer.model_max_length)
    words = [words_of(tokenizer, target) for target in targets]
    for name, factor in weights.items():
        if not math.isfinite(factor):
            raise ValueError(f"expected a finite factor for “{name}”, got {factor}")
        # A word may be in some prompts of a batch alone.
        having = [n for n, each in enumerate(words) if _occurrences(tokenizer, each, name)]
        if not having:
            raise _unknown_word(name, targets[0], words[0])
        for n in having:
            factors[n, token_mask(tokenizer, targets[n], [name]).bool()] *= factor
    return factors


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


@dataclass(frozen=True)
class _Token:
    """A token of a prompt: its number, its word's, its characters, and whether it is known."""

    number: int
    word: int
    start: int
    stop: int
    known: bool


def _tokens(tokenizer: CLIPTokenizer, prompt: str) -> list[_Token]:
    """The tokens of a prompt in NFC: of other forms, offsets leave combining accents out."""
    pieces = tokenizer(
        prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    tokens = []
    for number, word, (start, stop) in zip(
        pieces.input_ids, pieces.word_ids(), pieces["offset_mapping"], strict=True
    ):
        known = number != tokenizer.unk_token_id or prompt[start:stop] == tokenizer.unk_token
        tokens.append(_Token(number, word, start, stop, known))
    most = tokenizer.model_max_length - 2
    if len(tokens) > most:
        cut = next(token for token in tokens if token.word == tokens[most].word)
        raise ValueError(
            f"the prompt has {len(tokens)} tokens, expected at most {most}: shorten it, from "
            f"“{prompt[cut.start :]}” on it would be cut off"
        )
    return tokens


def _text(tokenizer: CLIPTokenizer, prompt: str, tokens: Sequence[_Token]) -> str:
    """What a word is called: an added token by its own name, any other as it is normalised."""
    backend, numbers = tokenizer.backend_tokenizer, [token.number for token in tokens]
    if not all(token.known for token in tokens):
        return backend.normalizer.normalize_str(prompt[tokens[0].start : tokens[-1].stop])
    if numbers[0] in tokenizer.added_tokens_decoder:
        return tokenizer.added_tokens_decoder[numbers[0]].content
    pieces = "".join(tokenizer.convert_ids_to_tokens(numbers))
    return backend.decoder.decode([pieces.removesuffix("</w>")])


def _check_trained(tokenizer: CLIPTokenizer, prompt: str) -> None:
    # A tokenizer that lists its words knows no others: pieces of them were never trained.
    trained = tokenizer.init_kwargs.get("words")
    if not trained:
        return
    known = {*trained, *tokenizer.get_added_vocab()}
    if not known.issuperset(_names(words_of(tokenizer, prompt))):
        raise ValueError(
            f"the model does not know all words of “{prompt}”: it was trained on "
            f"{', '.join(trained)}"
        )


def _say_unknown(prompt: str, tokens: Sequence[_Token]) -> None:
    """Say which characters the tokenizer dropped, or took for an unknown token."""
    seen = {n for token in tokens if token.known for n in range(token.start, token.stop)}
    seen -= {n for token in tokens if not token.known for n in range(token.start, token.stop)}
    marked = [(c, not c.isspace() and n not in seen) for n, c in enumerate(prompt)]
    runs = ["".join(c for c, _ in run) for lost, run in groupby(marked, lambda e: e[1]) if lost]
    if runs:
        listed = ", ".join(f"“{run}”" for run in dict.fromkeys(runs))
        notify(f"the tokenizer knows no {listed}: the model does not read that of “{prompt}”")


def _say_partial(tokenizer: CLIPTokenizer, prompt: str, tokens: Sequence[_Token]) -> None:
    """Say which added tokens are the first of several that diffusers writes as one."""
    added, numbers = tokenizer.get_added_vocab(), [token.number for token in tokens]
    for n, token in enumerate(tokens):
        written = prompt[token.start : token.stop]
        second = added.get(f"{written}_1")
        if second is not None and numbers[n + 1 : n + 2] != [second]:
            notify(
                f"“{written}” is the first of several vectors, the others have no effect: write "
                f"“{written} {written}_1” and so on"
            )


def _names(words: Words) -> list[str]:
    return [word for word, _ in words.values()]


def _occurrences(tokenizer: CLIPTokenizer, words: Words, name: str) -> list[int]:
    """The numbers of the words, one or several in a row, that somebody names."""
    asked, names = _names(words_of(tokenizer, name)), _names(words)
    starts = [n for n in range(len(names)) if asked and names[n : n + len(asked)] == asked]
    return [start + n for start in starts for n in range(len(asked))]


def _unknown_word(word: str, prompt: str, words: Words) -> ValueError:
    expected = ", ".join(_names(words))
    return ValueError(f"“{word}” is not a word of “{prompt}”: expected some of {expected}")
