"""Train UNet and text encoder together, with cross-attention that is told where to look.

The renderer knows where every thing is, so a word can be taught to look at what it speaks of.
Real checkpoints get such maps from scale alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from transformers import CLIPTokenizer

from erddci.grid import stable_diffusion_scheduler
from erddci.scenes.captions import tokenizer
from erddci.scenes.scene import (
    TRAIN_SEEDS,
    WORLD_WORDS,
    Scene,
    caption,
    sample_named_scene,
    subjects,
)
from erddci.training.loop import Recipe, train
from erddci.training.train import Denoiser
from erddci.training.vae import CHANNELS

SUPERVISION = 0.01  # weight of what words are told about where to look
RECIPE = partial(Recipe, learning_rate=1e-3, ratio=3.0)
NOBODY = -1  # the region of a token that speaks of nothing in the picture


class Recorder:
    """An attention processor that keeps the probabilities [B, queries, tokens], heads averaged."""

    def __init__(self, kept: list[Tensor]) -> None:
        self.kept = kept

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *others: object,
        **more: object,
    ) -> Tensor:
        words = encoder_hidden_states
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # type: ignore[misc]
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, words), (attn.to_v, words))
        )
        probs = (query * attn.scale @ key.mT).float().softmax(-1)
        self.kept.append(probs.mean(1))
        seen = (probs.to(value) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](seen))  # type: ignore[index]


@contextmanager
def recording(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Keep the cross-attention of all calls in the block, a tensor a layer, in order."""
    kept: list[Tensor] = []
    before = unet.attn_processors
    recorder = Recorder(kept)
    unet.set_attn_processor(
        {name: recorder if ".attn2." in name else each for name, each in before.items()}
    )
    try:
        yield kept
    finally:
        unet.set_attn_processor(dict(before))


def misplaced(kept: list[Tensor], regions: Tensor, subject: Tensor) -> Tensor:
    """How far words look away: −log of the share of their attention in their region, averaged.

    Args:
        kept: cross-attention [B, queries, tokens] of each layer.
        regions: [B, 3, 16, 16] in [0, 1].
        subject: the region of each token [B, tokens], or `NOBODY`.
    """
    speaks = subject != NOBODY
    total = torch.zeros(())
    for probs in kept:
        side = round(probs.shape[1] ** 0.5)
        own = F.adaptive_avg_pool2d(regions, side).flatten(2)  # [B, 3, queries]
        own = own.gather(1, subject.clamp(min=0)[..., None].expand(-1, -1, own.shape[2]))
        share = (probs.mT * own).sum(2) / probs.mT.sum(2)
        total = total - (share[speaks] + 1e-4).log().mean()
    return total / len(kept)


@dataclass(frozen=True)
class Captions:
    """Captions of scenes as tokens and regions [variants, N, L]: in full and brief, either order.

    The variants are: as sampled, left first, as sampled and brief, left first and brief.
    """

    tokens: Tensor
    subject: Tensor

    @classmethod
    def of(cls, scenes: list[Scene], words: CLIPTokenizer) -> Captions:
        ordered = [replace(scene, right_first=False) for scene in scenes]
        variants = [(part, brief) for brief in (False, True) for part in (scenes, ordered)]
        tokens = [tokens_of([caption(s, brief) for s in part], words) for part, brief in variants]
        subject = [
            torch.tensor([_padded(subjects(s, brief), tokens[0].shape[1]) for s in part])
            for part, brief in variants
        ]
        return cls(torch.stack(tokens), torch.stack(subject))


def _padded(found: list[int | None], length: int) -> list[int]:
    known = [NOBODY if each is None else each for each in found]
    return [NOBODY, *known, *[NOBODY] * (length - 1 - len(known))]


def tokens_of(texts: list[str], words: CLIPTokenizer) -> Tensor:
    """Tokens [N, L] of prompts."""
    return words(texts, padding="max_length", return_tensors="pt").input_ids


def new_denoiser(shipped: Path | None = None) -> Denoiser:
    """A denoiser of the world of named things, which begins with what a shipped one knows.

    Layers of the same shape are copied, embeddings word by word; a new word begins as the mean
    of the old ones, and the first and the last layer, whose channels are others, from nothing.
    """
    denoiser = Denoiser(WORLD_WORDS, CHANNELS)
    if shipped is None:
        return denoiser
    old = StableDiffusionPipeline.from_pretrained(shipped, torch_dtype=torch.float32)
    _copy(old.unet, denoiser.unet)
    _copy(old.text_encoder, denoiser.text)
    ids, new = old.tokenizer.get_vocab(), tokenizer(WORLD_WORDS).get_vocab()
    source = old.text_encoder.get_input_embeddings().weight.data
    target = denoiser.text.get_input_embeddings().weight.data
    target[:] = source[: len(ids)].mean(0)
    for word in ids.keys() & new.keys():
        target[new[word]] = source[ids[word]]
    return denoiser


def _copy(source: torch.nn.Module, target: torch.nn.Module) -> None:
    known, wanted = source.state_dict(), target.state_dict()
    same = {k: v for k, v in known.items() if k in wanted and v.shape == wanted[k].shape}
    target.load_state_dict(same, strict=False)


def train_denoiser(
    folder: Path,
    latents: Tensor,
    regions: np.ndarray,
    recipe: Recipe,
    *,
    shipped: Path | None = None,
    size: int = 32,
) -> Denoiser:
    """Train to predict the noise in the latents of training scenes [N, 16, 16, 16].

    One caption in ten is empty, for classifier-free guidance, and one in ten is brief; three in
    four name the thing on the left first.  The weight of the error of x_0 is the signal-to-noise
    ratio between 0.1 and 5 (min-SNR, Hang et al. 2023, 2303.09556, and a lower bound that keeps
    the noisiest steps in play).  Words that speak of a thing or of the floor are told where it is.
    """
    words = tokenizer(WORLD_WORDS)
    scenes = [sample_named_scene(seed) for seed in TRAIN_SEEDS[: len(latents)]]
    captions, empty = Captions.of(scenes, words), tokens_of([""], words)[0]
    noiser = DDPMScheduler.from_config(stable_diffusion_scheduler().config)
    signal = noiser.alphas_cumprod / (1 - noiser.alphas_cumprod)
    weight = signal.clamp(0.1, 5) / signal

    def loss(network: Denoiser, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        index = torch.randint(len(latents), (size,), generator=generator)
        t = torch.randint(1000, (size,), generator=generator)
        luck = torch.rand(size, generator=generator)
        variant = torch.randint(2, (size,), generator=generator)
        variant = torch.where(luck < 0.2, variant + 2, variant)
        tokens, subject = captions.tokens[variant, index], captions.subject[variant, index]
        tokens[luck < 0.1], subject[luck < 0.1] = empty, NOBODY
        noise = torch.randn(latents[index].shape, generator=generator)
        x = noiser.add_noise(latents[index], noise, t)
        with recording(network.unet) as kept:
            found = network(x.contiguous(memory_format=torch.channels_last), t, tokens).float()
        error = (found - noise).square().mean((1, 2, 3))
        own = torch.from_numpy(regions[index.numpy()]).float() / 255
        return (weight[t] * error).mean() + SUPERVISION * misplaced(kept, own, subject)

    return train(new_denoiser(shipped), loss, folder, recipe)
