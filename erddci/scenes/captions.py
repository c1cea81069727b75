"""The words of the embedded model: its CLIP tokenizer, in which every word is one token."""

from __future__ import annotations

import json
from collections.abc import Sequence

import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from erddci.scenes.scene import WORDS

LENGTH = 24  # tokens in a prompt, start and end included; the longest caption takes 18


def tokenizer(words: Sequence[str] = WORDS) -> CLIPTokenizer:
    """Build the CLIP tokenizer of the embedded model from its word list.

    Byte-pair encoding is trained on `words` until each is one token; any other word falls apart
    into pieces that the text encoder has never seen.
    """
    pieces = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(
        end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(words, trainer)
    learned = json.loads(pieces.to_str())["model"]
    tokens = ["<|startoftext|>", "<|endoftext|>", *(f"{word}</w>" for word in words)]
    tokens += [*alphabet, *(f"{letter}</w>" for letter in alphabet), *learned["vocab"]]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(pair) for pair in learned["merges"]]
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=LENGTH, words=list(words)
    )
