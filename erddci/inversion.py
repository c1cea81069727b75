"""Inversion and reconstruction by any method, and what is to be known of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from erddci import methods
from erddci.grid import Grid
from erddci.guidance import Condition, Model
from erddci.methods import Callback, identity
from erddci.notices import check_finite, notify
from erddci.registry import lookup
from erddci.trajectory import Trajectory

APPROXIMATE, EXACT, STORED = "approximate", "exact", "exact given what is stored"


@dataclass(frozen=True)
class Method:
    """A method's functions and what is to be known of it.

    Args:
        invert, sample: from latents to noise, and back.
        label, color, marker: how tables and figures show it.
        reversible: `APPROXIMATE`, `EXACT` (an invertible map) or `STORED`.
        inverts: under which guidance it is inverted: that of the sampling that follows
            ("guided"), w = 1 ("unguided"), or what the guidance schedule says ("scheduled").
        both_common: whether inverting the other way is common too.
        stores: what sampling needs beside the noise.
        nfe: function evaluations for N steps, inversion and sampling, with the default options,
            if a guided prediction costs g (1 at w = 1, else 2); of methods that optimise, at most,
            and their gradients' backward passes come on top.
        expensive: whether it iterates or optimises in every step.
        source: the paper.
        licence: of the authors' code, as far as it is known to us.
        edit: how targets are sampled beside the source, if not by `sample` as well.
        source_only: names of what is stored for the source alone: targets get zeros.
    """

    invert: Callable[..., Trajectory]
    sample: Callable[..., Trajectory]
    label: str
    color: str
    marker: str
    reversible: str
    inverts: Literal["guided", "unguided", "scheduled"]
    stores: str
    nfe: Callable[[int, int], tuple[int, int]]
    source: str
    licence: str
    both_common: bool = False
    expensive: bool = False
    edit: Callable[..., tuple[Trajectory, Trajectory]] | None = None
    source_only: tuple[str, ...] = ()

    def is_guided(self, condition: Condition, guided: bool | None = None) -> bool:
        """Whether it is inverted under the guidance of a condition to sample under.

        Args:
            guided: what was asked for; None follows the method.

        Raises:
            ValueError: `guided` against a method that is always inverted in one way.
        """
        own = self.inverts == "guided"
        if self.inverts == "scheduled" and condition.schedule is not None:
            own = condition.schedule.guide_inversion
        if guided is None or guided == own:
            return own
        if not self.both_common:
            way = "under the guidance of sampling" if own else "at w = 1"
            raise ValueError(f"{self.label} is always inverted {way}: leave `guided` out")
        return guided


METHODS = {
    "ddim": Method(
        methods.ddim,
        methods.ddim_sample,
        label="DDIM",
        color="#D55E00",
        marker="o",
        reversible=APPROXIMATE,
        inverts="unguided",
        both_common=True,
        stores="nothing",
        nfe=lambda n, g: (n, g * n),
        source="Song et al. 2021, arXiv 2010.02502",
        licence="MIT",
    ),
    "fixed-point": Method(
        methods.fixed_point,
        methods.ddim_sample,
        label="fixed-point",
        color="#A52A2A",
        marker="p",
        reversible=APPROXIMATE,
        inverts="guided",
        expensive=True,
        stores="nothing",
        nfe=lambda n, g: (10 * g * n, g * n),
        source="as in Pan et al. 2023, arXiv 2309.04907",
        licence="none",
    ),
    "aidi": Method(
        methods.aidi,
        methods.ddim_sample,
        label="AIDI",
        color="#8C564B",
        marker="h",
        reversible=APPROXIMATE,
        inverts="guided",
        expensive=True,
        stores="nothing",
        nfe=lambda n, g: (5 * g * n, g * n),
        source="Pan et al. 2023, arXiv 2309.04907",
        licence="no code published",
    ),
    "renoise": Method(
        methods.renoise,
        methods.ddim_sample,
        label="ReNoise",
        color="#B79F00",
        marker="<",
        reversible=APPROXIMATE,
        inverts="guided",
        stores="nothing",
        nfe=lambda n, g: (2 * g * n, g * n),
        source="Garibi et al. 2024, arXiv 2403.14602",
        licence="none",
    ),
    "spdinv": Method(
        methods.spdinv,
        methods.negative_prompt_sample,
        label="SPDInv",
        color="#7F7F7F",
        marker="H",
        reversible=APPROXIMATE,
        inverts="unguided",
        expensive=True,
        stores="nothing",
        nfe=lambda n, g: (27 * n, g * n),
        source="Li et al. 2024, arXiv 2403.11105",
        licence="none",
    ),
    "null-text": Method(
        methods.null_text,
        methods.null_text_sample,
        label="null-text",
        color="#000000",
        marker="s",
        reversible=APPROXIMATE,
        inverts="guided",
        expensive=True,
        stores="N null embeddings",
        nfe=lambda n, g: (n if g == 1 else 14 * n, g * n),
        source="Mokady et al. 2022, arXiv 2211.09794",
        licence="Apache-2.0",
    ),
    "negative-prompt": Method(
        methods.negative_prompt,
        methods.negative_prompt_sample,
        label="negative-prompt",
        color="#555555",
        marker="^",
        reversible=APPROXIMATE,
        inverts="unguided",
        stores="nothing",
        nfe=lambda n, g: (n, g * n),
        source="Miyake et al. 2023, arXiv 2305.16807",
        licence="no code published",
    ),
    "proximal": Method(
        methods.negative_prompt,
        methods.proximal_sample,
        label="proximal",
        color="#9467BD",
        marker="8",
        reversible=APPROXIMATE,
        inverts="unguided",
        stores="N + 1 latents",
        nfe=lambda n, g: (n, 2 * n),
        source="Han et al. 2023, arXiv 2306.05414",
        licence="Apache-2.0",
    ),
    "direct": Method(
        methods.direct,
        methods.direct_sample,
        label="Direct",
        color="#66A61E",
        marker="*",
        reversible=STORED,
        inverts="guided",
        stores="N offsets",
        nfe=lambda n, g: (n + g * n, g * n),
        source="Ju et al. 2023, arXiv 2310.01506",
        licence="none",
        source_only=("offset",),
    ),
    "edit-friendly": Method(
        methods.edit_friendly,
        methods.edit_friendly_sample,
        label="edit-friendly",
        color="#009E73",
        marker="d",
        reversible=STORED,
        inverts="guided",
        stores="N noise maps",
        nfe=lambda n, g: (g * n, g * n),
        source="Huberman-Spiegelglas et al. 2023, arXiv 2304.06140",
        licence="MIT",
    ),
    "edict": Method(
        methods.edict,
        methods.edict_sample,
        label="EDICT",
        color="#CC79A7",
        marker="D",
        reversible=EXACT,
        inverts="guided",
        stores="a second latent",
        nfe=lambda n, g: (2 * g * n, 2 * g * n),
        source="Wallace et al. 2022, arXiv 2211.12446",
        licence="BSD-3-Clause",
    ),
    "bdia": Method(
        methods.bdia,
        methods.two_step_sample,
        label="BDIA",
        color="#E69F00",
        marker="X",
        reversible=EXACT,
        inverts="guided",
        stores="a second latent",
        nfe=lambda n, g: (g * n, g * (n - 1)),
        source="Zhang et al. 2023, arXiv 2307.10829",
        licence="none",
    ),
    "belm": Method(
        methods.belm,
        methods.two_step_sample,
        label="O-BELM",
        color="#56B4E9",
        marker="P",
        reversible=EXACT,
        inverts="guided",
        stores="a second latent",
        nfe=lambda n, g: (g * n, g * (n - 1)),
        source="Wang et al. 2024, arXiv 2410.07273",
        licence="MIT",
    ),
    "dual-chain": Method(
        methods.dual_chain,
        methods.dual_chain_sample,
        label="dual chain",
        color="#0072B2",
        marker="v",
        reversible=STORED,
        inverts="scheduled",
        both_common=True,
        stores="N + 1 latents and N noises",
        nfe=lambda n, g: (2 * n, (g - 1) * n),
        source="Dai et al. 2024, arXiv 2410.14247",
        licence="Apache-2.0",
        edit=methods.dual_chain_edit,
    ),
}


def invert(
    model: Model,
    x: Tensor,
    condition: Condition,
    method: str = "dual-chain",
    steps: int = 50,
    *,
    guided: bool | None = None,
    **options: Any,  # noqa: ANN401 (each method has its own)
) -> Trajectory:
    """Invert an image's latents to noise with one of `METHODS`.

    Args:
        model: a denoiser, such as `erddci.load()`.
        x: image latents [B, C, H, W]; float64 makes "exact" mean 1e-13.
        condition: the prompt that describes the image, under the guidance of the reconstruction or
            edit that is to follow.  Whether inversion is under that guidance too, or at w = 1, is
            the method's own rule.
        method: a key of `METHODS`.
        steps: N, the number of DDIM steps.
        guided: overrides the rule where both ways are common: True inverts under the condition's
            guidance, False at w = 1.
        options: keyword arguments of the method, such as `timestep="current"`.

    Raises:
        ValueError: an unknown method, latents of another shape or not finite, too few steps, or
            `guided` for a method that has one way alone.
        NotFinite: numbers that grew beyond all bounds.
        TypeError: an option that the method does not have.
    """
    if x.ndim != 4 or not x.is_floating_point() or not x.isfinite().all():
        raise ValueError(
            "expected finite floating-point latents [B, C, H, W], "
            f"got shape {tuple(x.shape)} of {x.dtype}: encode the image first"
        )
    known = lookup(METHODS, method, "method")
    guided = known.is_guided(condition, guided)
    grid = model.grid(steps)
    check_noise(grid)
    before = model.nfe
    # Methods that optimise need gradients, which inference mode rules out, and for what is made in
    # it for good.
    with torch.inference_mode(False), torch.no_grad():
        x, condition = x.clone(), condition.clone()
        inverted = condition if guided else condition.with_guidance(1)
        path = known.invert(model, x, inverted, grid, **options)
    nfe = (model.nfe - before) / len(x)
    path = signed(replace(path, condition=condition, guided=guided, method=method, nfe=nfe), model)
    check_trajectory(path, f"inversion by {known.label}")
    return path


@torch.no_grad()
def reconstruct(model: Model, path: Trajectory, condition: Condition | None = None) -> Trajectory:
    """Sample from noise back to the image along a trajectory that `invert` returned.

    Without a condition the trajectory's own is used: the image should come back.  A schedule that
    anchors pulls each step towards the trajectory.

    Raises:
        ValueError: a trajectory of another model or of an unknown method.
        NotFinite: numbers that grew beyond all bounds.
    """
    check_model(path, model)
    condition = condition or path.condition
    known = lookup(METHODS, path.method, "method")
    check_guidance(condition, path.grid)
    before = model.nfe
    back = known.sample(model, path, condition, anchor_callback(path, condition))
    check_trajectory(back, f"reconstruction by {known.label}", sampling=True)
    return replace(back, guided=True, nfe=(model.nfe - before) / path.xs.shape[1])


def signed(path: Trajectory, model: Model) -> Trajectory:
    """A trajectory that says which model it is of."""
    return replace(path, model=model.name, fingerprint=model.fingerprint)


def check_model(path: Trajectory, model: Model) -> None:
    """Refuse a trajectory of another model, wherever it was loaded from.

    Raises:
        ValueError: names what differs.
    """
    if not path.fingerprint:
        raise ValueError("expected a trajectory that `invert` returned, got one of no model")
    difference = "another kind of model"
    if path.fingerprint.startswith("{") == model.fingerprint.startswith("{"):
        difference = model.difference(path.fingerprint)
    if difference:
        raise ValueError(
            f"expected a trajectory of {model.name}, got one of {path.model} ({difference}): "
            "invert the image with the model that is to sample from it"
        )


def anchor_callback(path: Trajectory, condition: Condition) -> Callback:
    """Pull each sampling step towards the trajectory by the share that the schedule says."""
    if condition.schedule is None or condition.schedule.anchor == 0:
        return identity
    share = condition.schedule.anchor
    return lambda x, i: x + share * (path.xs[i] - x)


def check_guidance(condition: Condition, grid: Grid) -> None:
    """Say if guidance that was asked for acts at no step, or pushes away from nothing."""
    if condition.guidance_scale == 1:
        if condition.negative_prompt:
            notify(f"the negative prompt “{condition.negative_prompt}” has no effect at w = 1")
        return
    if condition.schedule is None or condition.schedule.weight(grid.t[1:].double()).any():
        return
    low, high = condition.schedule.interval
    notify(
        f"guidance at w = {condition.guidance_scale:g} acts at no step: none of the timesteps "
        f"{int(grid.t[1])}…{int(grid.t[-1])} of {grid.num_steps} steps is in the schedule's "
        f"interval {low:g}…{high:g}; take another number of steps, or a wider interval"
    )


# SD's schedule is below this from t = 590 on.
NOISE = 0.2


def check_noise(grid: Grid) -> None:
    """Say if the last node of a grid is far from noise."""
    last = float(grid.alphas[-1])
    if last > NOISE:
        notify(
            f"{grid.num_steps} steps end at t = {int(grid.t[-1])}, where ᾱ = {last:.2f} is still "
            "image: what an edit can change is little; take another number of steps, such as 50"
        )


def check_trajectory(path: Trajectory, what: str, sampling: bool = False) -> None:
    """Refuse a trajectory whose numbers grew beyond all bounds.

    Raises:
        NotFinite: says at which node and timestep.
    """
    remedy = "take more steps or a smaller guidance scale; a network in float16 may need bfloat16"
    bad = (~path.xs.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        node = bad[-1] if sampling else bad[0]
        place = f"at node {node} of {path.grid.num_steps} (t = {int(path.grid.t[node])})"
        check_finite(path.xs[node], f"in the {what} {place}", remedy)
    for name, stored in (path.per_node | path.per_step).items():
        check_finite(stored, f"in what the {what} stores as {name!r}", remedy)
