"""Inversion and reconstruction by any method, and what is to be known of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erddci import methods
from erddci.guidance import Condition, Denoiser, Dynamic
from erddci.methods import After, same
from erddci.trajectory import Trajectory


@dataclass(frozen=True)
class Method:
    """A method's two functions and what is to be known of it.

    Args:
        up, back: the walk to noise and the walk back.
        reversible: "approximate", "exact" (an invertible map) or "exact given what is stored".
        guided: whether `up` is meant for the w of the way back; if not, for w = 1.
        stores: what the way back needs beside the noise.
        rows: network rows up and back for N steps, with the default options, if a guided call
            costs g rows (1 at w = 1, else 2); of methods that optimise, at most, and their
            gradients' backward passes come on top.
        source: the paper.
        licence: of the authors' code, as far as it is known to us.
    """

    up: Callable[..., Trajectory]
    back: Callable[..., Trajectory]
    reversible: str
    guided: bool
    stores: str
    rows: Callable[[int, int], tuple[int, int]]
    source: str
    licence: str


STORED = "exact given what is stored"

METHODS = {
    "ddim": Method(
        methods.ddim,
        methods.ddim_back,
        reversible="approximate",
        guided=False,
        stores="nothing",
        rows=lambda n, g: (n, g * n),
        source="Song et al. 2021, arXiv 2010.02502",
        licence="MIT",
    ),
    "fixed-point": Method(
        methods.fixed_point,
        methods.ddim_back,
        reversible="approximate",
        guided=True,
        stores="nothing",
        rows=lambda n, g: (10 * g * n, g * n),
        source="as in Pan et al. 2023, arXiv 2309.04907",
        licence="none",
    ),
    "aidi": Method(
        methods.aidi,
        methods.ddim_back,
        reversible="approximate",
        guided=True,
        stores="nothing",
        rows=lambda n, g: (5 * g * n, g * n),
        source="Pan et al. 2023, arXiv 2309.04907",
        licence="no code published",
    ),
    "renoise": Method(
        methods.renoise,
        methods.ddim_back,
        reversible="approximate",
        guided=True,
        stores="nothing",
        rows=lambda n, g: (2 * g * n, g * n),
        source="Garibi et al. 2024, arXiv 2403.14602",
        licence="none",
    ),
    "spdinv": Method(
        methods.spdinv,
        methods.negative_prompt_back,
        reversible="approximate",
        guided=False,
        stores="nothing",
        rows=lambda n, g: (27 * n, g * n),
        source="Li et al. 2024, arXiv 2403.11105",
        licence="none",
    ),
    "null-text": Method(
        methods.null_text,
        methods.null_text_back,
        reversible="approximate",
        guided=True,
        stores="N null embeddings",
        rows=lambda n, g: (n if g == 1 else 14 * n, g * n),
        source="Mokady et al. 2022, arXiv 2211.09794",
        licence="Apache-2.0",
    ),
    "negative-prompt": Method(
        methods.negative_prompt,
        methods.negative_prompt_back,
        reversible="approximate",
        guided=False,
        stores="nothing",
        rows=lambda n, g: (n, g * n),
        source="Miyake et al. 2023, arXiv 2305.16807",
        licence="no code published",
    ),
    "proximal": Method(
        methods.negative_prompt,
        methods.proximal_back,
        reversible="approximate",
        guided=False,
        stores="N + 1 latents",
        rows=lambda n, g: (n, 2 * n),
        source="Han et al. 2023, arXiv 2306.05414",
        licence="Apache-2.0",
    ),
    "direct": Method(
        methods.direct,
        methods.direct_back,
        reversible=STORED,
        guided=True,
        stores="N offsets",
        rows=lambda n, g: (n + g * n, g * n),
        source="Ju et al. 2023, arXiv 2310.01506",
        licence="none",
    ),
    "edit-friendly": Method(
        methods.edit_friendly,
        methods.edit_friendly_back,
        reversible=STORED,
        guided=True,
        stores="N noise maps",
        rows=lambda n, g: (g * n, g * n),
        source="Huberman-Spiegelglas et al. 2023, arXiv 2304.06140",
        licence="MIT",
    ),
    "edict": Method(
        methods.edict,
        methods.edict_back,
        reversible="exact",
        guided=True,
        stores="a second latent",
        rows=lambda n, g: (2 * g * n, 2 * g * n),
        source="Wallace et al. 2022, arXiv 2211.12446",
        licence="BSD-3-Clause",
    ),
    "bdia": Method(
        methods.bdia,
        methods.two_step_back,
        reversible="exact",
        guided=True,
        stores="a second latent",
        rows=lambda n, g: (g * n, g * (n - 1)),
        source="Zhang et al. 2023, arXiv 2307.10829",
        licence="none",
    ),
    "belm": Method(
        methods.belm,
        methods.two_step_back,
        reversible="exact",
        guided=True,
        stores="a second latent",
        rows=lambda n, g: (g * n, g * (n - 1)),
        source="Wang et al. 2024, arXiv 2410.07273",
        licence="MIT",
    ),
    "dual-chain": Method(
        methods.dual_chain,
        methods.dual_chain_back,
        reversible=STORED,
        guided=False,
        stores="N + 1 latents and N noises",
        rows=lambda n, g: (2 * n, (g - 1) * n),
        source="Dai et al. 2024, arXiv 2410.14247",
        licence="Apache-2.0",
    ),
}


@torch.no_grad()
def invert(
    model: Denoiser,
    x: Tensor,
    condition: Condition,
    method: str = "dual-chain",
    steps: int = 50,
    **options: object,
) -> Trajectory:
    """Walk from image latents to noise with one of `METHODS`.

    Args:
        model: a denoiser, such as `erddci.load()`.
        x: image latents [B, C, H, W]; float64 makes "exact" mean 1e-13.
        condition: the prompt that describes the image; its guidance scale is used on the way.
        method: a key of `METHODS`.
        steps: N, the number of DDIM steps.
        options: keyword arguments of the method, such as `asks="source"`.

    Raises:
        ValueError: an unknown method, latents of another shape or not finite, too few steps.
        TypeError: an option that the method does not have.
    """
    if x.ndim != 4 or not x.is_floating_point() or not x.isfinite().all():
        raise ValueError(
            "expected finite floating-point latents [B, C, H, W], "
            f"got shape {tuple(x.shape)} of {x.dtype}: encode the image first"
        )
    before = model.rows
    path = _method(method).up(model, x, condition, model.grid(steps), **options)
    rows = (model.rows - before) / len(x)
    return replace(path, method=method, model=model.name, rows=rows)


@torch.no_grad()
def reconstruct(
    model: Denoiser, path: Trajectory, condition: Condition | None = None
) -> Trajectory:
    """Walk back from noise to the image along a path that `invert` returned.

    Without a condition the path's own is used: the image should come back.  Dynamic control that
    anchors pulls each step towards the path.

    Raises:
        ValueError: the path was made by another model or an unknown method.
    """
    if path.model != model.name:
        raise ValueError(
            f"expected a path of {model.name}, got one of {path.model or 'no model'}: "
            "invert the image with the model that is to reconstruct it"
        )
    before, condition = model.rows, condition or path.condition
    back = _method(path.method).back(model, path, condition, anchored(path, condition))
    return replace(back, rows=(model.rows - before) / path.xs.shape[1])


def climb(condition: Condition, method: str) -> Condition:
    """What a method is to be inverted under for a way back under a condition: it, or w = 1."""
    return condition if climbs_guided(method, condition.dynamic) else condition.at(1)


def climbs_guided(method: str, dynamic: Dynamic | None = None) -> bool:
    """Whether a method is to be inverted under the w of the way back.

    Most methods never or always are, as their papers have it; the dual chain is where dynamic
    control mirrors guidance.

    Raises:
        ValueError: an unknown method.
    """
    mirrored = method == "dual-chain" and dynamic is not None and dynamic.mirrored
    return mirrored or _method(method).guided


def anchored(path: Trajectory, condition: Condition) -> After:
    """Pull a walk back towards its path by the share that the condition's dynamic control says."""
    if condition.dynamic is None or condition.dynamic.anchor == 0:
        return same
    share = condition.dynamic.anchor
    return lambda x, i: x + share * (path.xs[i] - x)


def _method(name: str) -> Method:
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: expected one of {', '.join(METHODS)}")
    return METHODS[name]
