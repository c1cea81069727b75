"""Editing: sampling under another prompt along an inversion, with or without attention control.

An edit is a method's own sampling, run for source and target samples in one batch.
`SourceTargetDenoiser` tells them apart, so no method has to; attention control and blending sit in
it and around it.  A method may bring an edit of its own, as the dual chain does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from erddci.attention import AttentionState, Control
from erddci.controls import CONTROLS, INJECTING, AttentionStore, LocalBlend, make_control
from erddci.guidance import (
    DEFAULT_SCHEDULE,
    Condition,
    Denoiser,
    GuidanceSchedule,
    Model,
    guide_known,
)
from erddci.inversion import (
    METHODS,
    check_guidance,
    check_model,
    check_trajectory,
    invert,
    reconstruct,
    signed,
)
from erddci.masks import MaskInput, latent_mask
from erddci.methods import TIMESTEP_SHIFT, Callback, identity
from erddci.notices import notify
from erddci.registry import lookup, unknown
from erddci.trajectory import Trajectory

# Where the network is evaluated for a target of the dual chain; see `dual_chain_edit`.
EVALUATION_POINTS = ("shifted", "target")

# Not an inversion: fresh noise, sampled from part of the way up.  The baseline of every edit.
SDEDIT = "sdedit"


@dataclass(frozen=True)
class Edit:
    """Result of an edit.

    Args:
        path: the inversion that was sampled along.
        target: the targets' trajectory [n + 1, K·B, C, H, W]: B samples under the first prompt,
            then under the next.
        nfe: function evaluations per target.
        source: the source's reconstruction, where the edit sampled it too.
        attention: what attention control recorded, if there was any.
    """

    path: Trajectory
    target: Trajectory
    nfe: float
    source: Trajectory | None = None
    attention: AttentionState | None = None

    @property
    def x0(self) -> Tensor:
        """The edited latents [K·B, C, H, W]."""
        return self.target.x0


@runtime_checkable
class Controllable(Protocol):
    """A model whose attention can be controlled."""

    def attention_control(
        self, control: Control, shape: tuple[int, int]
    ) -> AbstractContextManager[AttentionState]:
        """Control the attention of latents of some height and width while a block runs."""
        ...


class SourceTargetDenoiser:
    """A denoiser of source and target samples: the first `sources` of a batch are the source.

    The source is predicted under the guidance of the inversion, and its attention recorded.  The
    targets are predicted under their own guidance, conditional and unconditional in calls of their
    own, so that a control never has to guess which is which.
    """

    def __init__(self, model: Denoiser, path: Trajectory, state: AttentionState) -> None:
        self.model, self.path, self.state = model, path, state
        self.sources = path.xs.shape[1]

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predict the guided noise of source and target samples."""
        sources, samples = self.sources, len(x)
        inverted = self.path.inversion_condition
        source = condition.samples(0, sources, samples)
        source = source.with_guidance(inverted.guidance_scale, inverted.schedule)
        if METHODS[self.path.method].edit is not None:
            # The noise of the source is stored; only its attention is needed.
            source = source.with_guidance(1)
        target = condition.samples(sources, samples, samples)
        null = "null" if self.state.control.controls_unconditional else "off"
        eps_source = self._predict(x[:sources], t, source, ("source", "off"))
        eps_target = self._predict(x[sources:], t, target, ("target", null))
        return torch.cat([eps_source, eps_target])

    def _predict(
        self, x: Tensor, t: Tensor, condition: Condition, modes: tuple[str, str]
    ) -> Tensor:
        progress = _progress(self.path, t)
        with self.state.set(modes[0], progress):
            conditional = self.model(x, t, condition.with_guidance(1))
        with self.state.set(modes[1], progress):
            return guide_known(self.model, x, t, condition, conditional)


@torch.no_grad()
def edit(
    model: Model,
    path: Trajectory,
    target: Condition,
    control: Control | None = None,
    *,
    blend: LocalBlend | MaskInput | None = None,
    evaluate_at: str = "shifted",
) -> Edit:
    """Sample from noise along a trajectory of `invert`, under another prompt.

    Args:
        model: a denoiser; attention control needs one with a UNet.
        path: B inverted samples; `path.with_strength(0.6)` samples 60 % of the steps anew.
        target: one prompt, or K for each sample, all samples for the first of them, then for the
            next; its guidance scale and schedule are those of the targets.
        control: how the target's attention follows the source's; None leaves it alone.
        blend: where targets may differ from the source: a `LocalBlend` learns it from attention to
            words, a mask of the image or of its latents (`erddci.masks`) says it.
        evaluate_at: of the dual chain, where the network is evaluated: "shifted" or "target".

    Raises:
        ValueError: another model's trajectory, prompts that do not fit the samples, a mask of
            another size, or an unknown `evaluate_at`.
        NotFinite: numbers that grew beyond all bounds.
    """
    _check(model, path, target, evaluate_at)
    check_guidance(target, path.grid)
    sources = path.xs.shape[1]
    targets = max(1, len(target.text) // sources)
    target = target.samples(0, targets * sources, targets * sources)
    before = model.nfe
    if control is None and not isinstance(blend, LocalBlend):
        callback = _callback(path, target, _mask(blend, path))
        source, edited = _sample(model, path, target, callback, evaluate_at)
        state = None
    else:
        with _attention_control(model, path, control or AttentionStore()) as state:
            mask = blend if isinstance(blend, LocalBlend) else _mask(blend, path)
            callback = _callback(path, target, mask, state)
            pair = SourceTargetDenoiser(model, path, state)
            source, edited = _sample(pair, path, _joined(path, target), callback, evaluate_at)
        _say_unchanged(state, path.condition, target)
        if isinstance(blend, LocalBlend):
            _say_unblended(blend, state.masks)
    check_trajectory(edited, "edit", sampling=True)
    nfe = (model.nfe - before) / (targets * sources)
    return Edit(path, edited, nfe, source, state)


def reconstruct_source(model: Model, edited: Edit) -> Trajectory:
    """The source's reconstruction beside an edit, sampled now if the edit could do without it."""
    if edited.source is not None:
        return edited.source
    return reconstruct(model, edited.path, edited.path.inversion_condition)


@torch.no_grad()
def sdedit_trajectory(
    model: Model,
    x: Tensor,
    condition: Condition,
    steps: int = 50,
    *,
    generator: torch.Generator | None = None,
) -> Trajectory:
    """No inversion at all: image latents under fresh noise at every node, for `edit` to start at.

    With a strength below 1 this is SDEdit, the baseline that every inversion should beat.

    Args:
        x: image latents [B, C, H, W].
        generator: a CPU generator; seed 0 if there is none.

    Source: SDEdit (Meng et al. 2021, 2108.01073).
    """
    generator = generator or torch.Generator().manual_seed(0)
    grid = model.grid(steps)
    noise = torch.randn(1, *x.shape[1:], generator=generator, dtype=torch.float64).to(x)
    xs = [x, *(grid.add_noise(x, noise, i) for i in range(1, steps + 1))]
    path = Trajectory(grid, torch.stack(xs), condition, guided=False, method="ddim")
    return signed(path, model)


class LatentDiffusion(Model, Controllable, Protocol):
    """What an edit described by words needs of a model."""

    tokenizer: CLIPTokenizer

    def condition(self, prompt: list[str]) -> Condition:
        """Encode prompts."""
        ...


@dataclass(frozen=True)
class EditConfig:
    """Everything that describes how an edit is done.

    Args:
        method: one of `METHODS`, or "sdedit" for no inversion.
        control: one of `erddci.controls.CONTROLS`.
        guidance_scale, schedule: of the targets.
        steps: N, the number of DDIM steps.
        cross_until, self_until: progress up to which cross- and self-attention are the source's.
        blend: whether only what the changed words attend to may differ from the source.
        threshold: share of a map's maximum above which a word attends there, for `blend`.
        strength: share of the trajectory that is sampled anew, in (0, 1].
        evaluate_at: of the dual chain, where the network is evaluated for a target.
        timestep: of methods that have it, the timestep of the network in an inversion step.
    """

    method: str = "dual-chain"
    control: str = "none"
    guidance_scale: float = 7.5
    schedule: GuidanceSchedule | None = DEFAULT_SCHEDULE
    steps: int = 50
    cross_until: float = 0.4
    self_until: float = 0.2
    blend: bool = False
    threshold: float = 0.3
    strength: float = 1.0
    evaluate_at: Literal["shifted", "target"] = "shifted"
    timestep: Literal["next", "current"] = "next"

    def __post_init__(self) -> None:
        lookup(dict.fromkeys([*METHODS, SDEDIT]), self.method, "method")
        lookup(dict.fromkeys(CONTROLS), self.control, "control")
        lookup(dict.fromkeys(EVALUATION_POINTS), self.evaluate_at, "evaluate_at")
        lookup(TIMESTEP_SHIFT, self.timestep, "timestep")
        if not 0 < self.strength <= 1:
            raise ValueError(f"expected strength in (0, 1], got {self.strength}")

    @property
    def inverts_guided(self) -> bool:
        """Whether the inversion is under the guidance of the targets too."""
        if self.method == SDEDIT or self.guidance_scale == 1:
            return False
        method = lookup(METHODS, self.method, "method")
        return method.is_guided(self._guide(_ANY))

    @property
    def inversion(self) -> EditConfig:
        """What the inversion depends on, with all else at its default: a key for caches."""
        guided = self.inverts_guided
        return EditConfig(
            method=self.method,
            guidance_scale=self.guidance_scale if guided else 1.0,
            schedule=self.schedule if guided else None,
            steps=self.steps,
            timestep=self.timestep,
        )

    def invert(self, model: LatentDiffusion, x: Tensor, sources: Sequence[str]) -> Trajectory:
        """Invert latents [B, C, H, W] under their source prompts, for `edit`."""
        condition = self._guide(model.condition(list(sources)))
        if self.method == SDEDIT:
            return sdedit_trajectory(model, x, condition, self.steps)
        options: dict[str, Any] = {}
        if self.timestep != "next":  # some methods have no such option
            options["timestep"] = self.timestep
        return invert(model, x, condition, self.method, self.steps, **options)

    def edit(
        self,
        model: LatentDiffusion,
        path: Trajectory,
        sources: Sequence[str],
        targets: Sequence[str],
    ) -> Edit:
        """Edit along a trajectory of `invert` towards the target prompts, one for each source."""
        target, control, blend = self._prepare(model, sources, targets)
        self._say_unread()
        path = path.with_strength(self.strength)
        return edit(model, path, target, control, blend=blend, evaluate_at=self.evaluate_at)

    def check(
        self, model: LatentDiffusion, sources: Sequence[str], targets: Sequence[str]
    ) -> None:
        """Raise what `edit` would raise for these prompts, before anything is inverted."""
        self._prepare(model, sources, targets)

    def _prepare(
        self, model: LatentDiffusion, sources: Sequence[str], targets: Sequence[str]
    ) -> tuple[Condition, Control | None, LocalBlend | None]:
        control = make_control(
            self.control, model.tokenizer, sources, targets, self.cross_until, self.self_until
        )
        blend = None
        if self.blend:
            blend = LocalBlend.from_prompts(model.tokenizer, sources, targets, self.threshold)
        return self._guide(model.condition(list(targets))), control, blend

    def _say_unread(self) -> None:
        """Say which options are set that nothing reads; 0 says the same as not being read."""
        unread = []
        if self.control not in INJECTING:
            unread += [
                (name, f"control={self.control!r}") for name in ("cross_until", "self_until")
            ]
        if not self.blend:
            unread.append(("threshold", "blend=False"))
        if self.method == SDEDIT:
            unread.append(("timestep", f"method={self.method!r}"))
        for name, where in unread:
            value = getattr(self, name)
            if value not in (0, getattr(EditConfig, name)):
                notify(f"{name}={value!r} has no effect with {where}")

    def max_nfe(self) -> tuple[float, float]:
        """Function evaluations for one image, at most: inversion; edit and source beside it."""
        guided = 1 if self.guidance_scale == 1 else 2
        method = METHODS["ddim" if self.method == SDEDIT else self.method]
        inversion, source = method.nfe(self.steps, 2 if self.inverts_guided else 1)
        target = method.nfe(self.steps, guided)[1]
        if self.method == SDEDIT:
            inversion = 0
        if method.edit is not None:  # what moves its source is stored
            traced = self.control != "none" or self.blend
            inversion += self.steps if self.inverts_guided else 0
            source = self.steps if traced else 0
            target = self.steps * guided
        return inversion, (source + target) * self.strength

    def _guide(self, condition: Condition) -> Condition:
        return condition.with_guidance(self.guidance_scale, self.schedule)


_ANY = Condition(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))


def _sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback, evaluate_at: str
) -> tuple[Trajectory | None, Trajectory]:
    """Sample targets, after the source if the model is to see both; source and targets."""
    method, sources = METHODS[path.method], path.xs.shape[1]
    traced = isinstance(model, SourceTargetDenoiser)
    if method.edit is not None:
        options = {"evaluate_at": evaluate_at, "trace_source": traced}
        return method.edit(model, path, condition, callback, **options)
    both = path.repeat(len(condition.text) // sources)
    both = _without_source_only(both, method.source_only, sources if traced else 0)
    sampled = method.sample(model, both, condition, callback)
    if not traced:
        return None, sampled
    target = replace(sampled, xs=sampled.xs[:, sources:])
    return replace(sampled, xs=sampled.xs[:, :sources]), target


def _without_source_only(path: Trajectory, names: Sequence[str], sources: int) -> Trajectory:
    """Zeros in place of what is stored for the source alone, for all samples but the first."""
    per_step = dict(path.per_step)
    for name in names:
        stored = per_step[name].clone()
        stored[:, sources:] = 0
        per_step[name] = stored
    return replace(path, per_step=per_step)


def _joined(path: Trajectory, target: Condition) -> Condition:
    """The condition of the source's samples and the targets', under the targets' guidance."""
    source = path.repeat(1).condition
    text = torch.cat([source.text, target.text])
    return replace(target, text=text, null=torch.cat([source.null, target.null]))


def _attention_control(
    model: Model, path: Trajectory, control: Control
) -> AbstractContextManager[AttentionState]:
    if not isinstance(model, Controllable):
        raise ValueError(
            f"expected a model with attention, got {model.name}: attention control and blending "
            "by words need one, edit with control=None and a mask"
        )
    height, width = path.xs.shape[-2:]
    return model.attention_control(control, (height, width))


def _callback(
    path: Trajectory,
    target: Condition,
    mask: Tensor | LocalBlend | None,
    state: AttentionState | None = None,
) -> Callback:
    """Pull targets towards the inversion by the schedule's anchor, and fully outside a mask."""
    anchor = target.schedule.anchor if target.schedule else 0.0
    if anchor == 0 and mask is None:
        return identity
    targets = len(target.text) // path.xs.shape[1]

    def callback(x: Tensor, i: int) -> Tensor:
        stored = path.xs[i].repeat(targets, 1, 1, 1)
        source, edited = x[: len(x) - len(stored)], x[len(x) - len(stored) :]
        free: Tensor | float = 1 - anchor
        if isinstance(mask, LocalBlend):
            assert state is not None
            if _progress(path, path.grid.t[i]) >= mask.start:
                state.masks.append(mask.mask(state))
                free = free * state.masks[-1].to(x)
        elif mask is not None:
            free = free * mask.to(x)
        return torch.cat([source, stored + free * (edited - stored)])

    return callback


def _progress(path: Trajectory, t: Tensor) -> float:
    """Progress of sampling at a timestep, from 0 at the noise to 1 at the image."""
    return 1 - float(t / path.grid.t[-1])


def _mask(mask: MaskInput | None, path: Trajectory) -> Tensor | None:
    height, width = path.xs.shape[-2:]
    return None if mask is None else latent_mask(mask, height, width)


def _check(model: Model, path: Trajectory, target: Condition, evaluate_at: str) -> None:
    check_model(path, model)
    prompts, samples = len(target.text), path.xs.shape[1]
    if prompts > 1 and prompts % samples:
        raise ValueError(
            f"expected one target prompt, or as many for each of {samples} samples, got {prompts}"
        )
    if evaluate_at not in EVALUATION_POINTS:
        raise unknown(evaluate_at, EVALUATION_POINTS, "evaluate_at")
    if evaluate_at != "shifted" and METHODS[path.method].edit is None:
        notify(f"evaluate_at={evaluate_at!r} has no effect on {METHODS[path.method].label}")


def _say_unchanged(state: AttentionState, source: Condition, target: Condition) -> None:
    """Say if a control left all attention as it was, though the prompts differ."""
    times = len(target.text) // len(source.text)
    differ = not torch.equal(source.text.repeat(times, 1, 1), target.text)
    if differ and not state.changed and not isinstance(state.control, AttentionStore):
        notify(
            f"{type(state.control).__name__} changed no attention: raise the progress up to which "
            "it acts, or edit with control=None"
        )


def _say_unblended(blend: LocalBlend, masks: list[Tensor]) -> None:
    """Say of which samples a blend put nothing back on the source, or everything at every step."""
    if not masks:
        notify(f"LocalBlend(start={blend.start:g}) blends at no step: lower start")
        return
    free = torch.stack(masks).flatten(2).bool()  # [steps, K·B, H·W]
    everything, nothing = free.all(2).all(0), ~free.any(2).any(0)
    if everything.any():
        notify(
            f"LocalBlend frees the whole image of {everything.sum()} of {len(everything)} samples "
            "at every step, it has no effect there: raise threshold"
        )
    if nothing.any():
        notify(
            f"LocalBlend frees nothing of {nothing.sum()} of {len(nothing)} samples at any step, "
            "it lets nothing change there: lower threshold"
        )
