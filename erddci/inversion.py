"""Inversion and reconstruction by any method, and what is to be known of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erddci import methods
from erddci.guidance import Condition, Denoiser, GuidanceSchedule
from erddci.methods import Callback, identity
from erddci.trajectory import Trajectory


@dataclass(frozen=True)
class Method:
    """A method's two functions and what is to be known of it.

    Args:
        invert, sample: the walk to noise and the walk back.
        reversible: "approximate", "exact" (an invertible map) or "exact given what is stored".
        inverts_guided: whether `up` is meant for the w of the way back; if not, for w = 1.
        stores: what the way back needs beside the noise.
        rows: network rows up and back for N steps, with the default options, if a guided call
            costs g rows (1 at w = 1, else 2); of methods that optimise, at most, and their
            gradients' backward passes come on top.
        source: the paper.
        licence: of the authors' code, as far as it is known to us.
    """

    invert: Callable[..., Trajectory]
    sample: Callable[..., Trajectory]
    reversible: str
    inverts_guided: bool
    stores: str
    nfe: Callable[[int, int], tuple[int, int]]
    source: str
    licence: str


STORED = "exact given what is stored"

METHODS = {
    "ddim": Method(
        methods.ddim,
        methods.ddim_sample,
        reversible="approximate",
        inverts_guided=False,
        stores="nothing",
        nfe=lambda n, g: (n, g * n),
        source="Song et al. 2021, arXiv 2010.02502",
        licence="MIT",
    ),
    "fixed-point": Method(
        methods.fixed_point,
        methods.ddim_sample,
        reversible="approximate",
        inverts_guided=True,
        stores="nothing",
        nfe=lambda n, g: (10 * g * n, g * n),
        source="as in Pan et al. 2023, arXiv 2309.04907",
        licence="none",
    ),
    "aidi": Method(
        methods.aidi,
        methods.ddim_sample,
        reversible="approximate",
        inverts_guided=True,
        stores="nothing",
        nfe=lambda n, g: (5 * g * n, g * n),
        source="Pan et al. 2023, arXiv 2309.04907",
        licence="no code published",
    ),
    "renoise": Method(
        methods.renoise,
        methods.ddim_sample,
        reversible="approximate",
        inverts_guided=True,
        stores="nothing",
        nfe=lambda n, g: (2 * g * n, g * n),
        source="Garibi et al. 2024, arXiv 2403.14602",
        licence="none",
    ),
    "spdinv": Method(
        methods.spdinv,
        methods.negative_prompt_sample,
        reversible="approximate",
        inverts_guided=False,
        stores="nothing",
        nfe=lambda n, g: (27 * n, g * n),
        source="Li et al. 2024, arXiv 2403.11105",
        licence="none",
    ),
    "null-text": Method(
        methods.null_text,
        methods.null_text_sample,
        reversible="approximate",
        inverts_guided=True,
        stores="N null embeddings",
        nfe=lambda n, g: (n if g == 1 else 14 * n, g * n),
        source="Mokady et al. 2022, arXiv 2211.09794",
        licence="Apache-2.0",
    ),
    "negative-prompt": Method(
        methods.negative_prompt,
        methods.negative_prompt_sample,
        reversible="approximate",
        inverts_guided=False,
        stores="nothing",
        nfe=lambda n, g: (n, g * n),
        source="Miyake et al. 2023, arXiv 2305.16807",
        licence="no code published",
    ),
    "proximal": Method(
        methods.negative_prompt,
        methods.proximal_sample,
        reversible="approximate",
        inverts_guided=False,
        stores="N + 1 latents",
        nfe=lambda n, g: (n, 2 * n),
        source="Han et al. 2023, arXiv 2306.05414",
        licence="Apache-2.0",
    ),
    "direct": Method(
        methods.direct,
        methods.direct_sample,
        reversible=STORED,
        inverts_guided=True,
        stores="N offsets",
        nfe=lambda n, g: (n + g * n, g * n),
        source="Ju et al. 2023, arXiv 2310.01506",
        licence="none",
    ),
    "edit-friendly": Method(
        methods.edit_friendly,
        methods.edit_friendly_sample,
        reversible=STORED,
        inverts_guided=True,
        stores="N noise maps",
        nfe=lambda n, g: (g * n, g * n),
        source="Huberman-Spiegelglas et al. 2023, arXiv 2304.06140",
        licence="MIT",
    ),
    "edict": Method(
        methods.edict,
        methods.edict_sample,
        reversible="exact",
        inverts_guided=True,
        stores="a second latent",
        nfe=lambda n, g: (2 * g * n, 2 * g * n),
        source="Wallace et al. 2022, arXiv 2211.12446",
        licence="BSD-3-Clause",
    ),
    "bdia": Method(
        methods.bdia,
        methods.two_step_sample,
        reversible="exact",
        inverts_guided=True,
        stores="a second latent",
        nfe=lambda n, g: (g * n, g * (n - 1)),
        source="Zhang et al. 2023, arXiv 2307.10829",
        licence="none",
    ),
    "belm": Method(
        methods.belm,
        methods.two_step_sample,
        reversible="exact",
        inverts_guided=True,
        stores="a second latent",
        nfe=lambda n, g: (g * n, g * (n - 1)),
        source="Wang et al. 2024, arXiv 2410.07273",
        licence="MIT",
    ),
    "dual-chain": Method(
        methods.dual_chain,
        methods.dual_chain_sample,
        reversible=STORED,
        inverts_guided=False,
        stores="N + 1 latents and N noises",
        nfe=lambda n, g: (2 * n, (g - 1) * n),
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
        options: keyword arguments of the method, such as `timestep="current"`.

    Raises:
        ValueError: an unknown method, latents of another shape or not finite, too few steps.
        TypeError: an option that the method does not have.
    """
    if x.ndim != 4 or not x.is_floating_point() or not x.isfinite().all():
        raise ValueError(
            "expected finite floating-point latents [B, C, H, W], "
            f"got shape {tuple(x.shape)} of {x.dtype}: encode the image first"
        )
    before = model.nfe
    path = _method(method).invert(model, x, condition, model.grid(steps), **options)
    nfe = (model.nfe - before) / len(x)
    return replace(path, method=method, model=model.name, nfe=nfe)


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
    before, condition = model.nfe, condition or path.condition
    back = _method(path.method).sample(model, path, condition, anchor_callback(path, condition))
    return replace(back, nfe=(model.nfe - before) / path.xs.shape[1])


def climb(condition: Condition, method: str) -> Condition:
    """What a method is to be inverted under for a way back under a condition: it, or w = 1."""
    return condition if climbs_guided(method, condition.schedule) else condition.with_guidance(1)


def climbs_guided(method: str, schedule: GuidanceSchedule | None = None) -> bool:
    """Whether a method is to be inverted under the w of the way back.

    Most methods never or always are, as their papers have it; the dual chain is where dynamic
    control mirrors guidance.

    Raises:
        ValueError: an unknown method.
    """
    mirrored = method == "dual-chain" and schedule is not None and schedule.guide_inversion
    return mirrored or _method(method).inverts_guided


def anchor_callback(path: Trajectory, condition: Condition) -> Callback:
    """Pull a walk back towards its path by the share that the condition's dynamic control says."""
    if condition.schedule is None or condition.schedule.anchor == 0:
        return identity
    share = condition.schedule.anchor
    return lambda x, i: x + share * (path.xs[i] - x)


def _method(name: str) -> Method:
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: expected one of {', '.join(METHODS)}")
    return METHODS[name]
