"""Editing: walk back under another prompt, with or without an eye on the source.

An edit is a method's own way back, walked by source rows and target rows together.  `SourceTargetDenoiser`
is the denoiser that tells them apart, so no method has to; attention control and blending sit in
it and around it.  The dual chain, whose way back reads a stored chain, has an edit of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from erddci.attention import AttentionState, Control, attention_control
from erddci.controls import AttentionStore, LocalBlend
from erddci.grid import Grid
from erddci.guidance import Condition, Denoiser, guide_known
from erddci.inversion import METHODS, Callback, identity
from erddci.trajectory import Trajectory

EVALUATION_POINTS = ("shifted", "target")

# What a method keeps for the source alone: a target row has nothing to be put back on.
OF_SOURCE = ("offset",)


@dataclass(frozen=True)
class Edit:
    """What an edit leaves.

    Args:
        source: the source's way back, which should end at the image; if nothing watched it, and
            the method is not the dual chain, the path self_until.
        target: the way of the targets [n + 1, K·B, C, H, W]: B samples under the first prompt,
            then under the next.
        rows: network rows for each target.
        state: what attention control saw, if there was any.
    """

    source: Trajectory
    target: Trajectory
    nfe: float
    attention: AttentionState | None = None

    @property
    def x0(self) -> Tensor:
        """The edited latents [K·B, C, H, W]."""
        return self.target.x0


def dual_chain_edit(
    model: Denoiser,
    path: Trajectory,
    condition: Condition,
    callback: Callback = identity,
    *,
    evaluate_at: str = "shifted",
    trace_source: bool = False,
) -> tuple[Trajectory, Trajectory]:
    """Edit along the dual chain: the source retraces it, the target leaves it by the edit alone.

    Both start at x_N.  The source moves along the kept noise, the target along what the network
    says of it.  Under the "shifted" reading it is asked at z_i + (y − x), as far from the original
    chain as the target is from the source: under the source's own prompt and guidance that is z_i
    self_until, and the image comes back exactly.  Under the "target" reading it is asked at y.

    Args:
        watch: whether the network is asked at z_i too, in rows before the target's, for attention
            control to look at.

    Source: our formulation; the paper's editing algorithm was not available to us.
    """
    grid, x = path.grid, path.xT
    y = x.repeat(len(condition.text) // len(x) - trace_source, 1, 1, 1)
    xs, ys = [x], [y]
    for i in grid.sampling_nodes():
        z = path.kept["z"][i]
        at = y if evaluate_at == "target" else (z - x).repeat(len(y) // len(x), 1, 1, 1) + y
        eps = model(torch.cat([z, at]) if trace_source else at, grid.t[i], condition)[-len(y) :]
        x = grid.step(x, path.kept["eps"][i - 1], i, i - 1)
        y = callback(grid.step(y, eps, i, i - 1), i - 1)
        xs, ys = [*xs, x], [*ys, y]
    return replace(path, xs=torch.stack(xs[::-1])), replace(path, xs=torch.stack(ys[::-1]))


class SourceTargetDenoiser:
    """A denoiser of source and target rows: the first `sources` rows are the source.

    Source rows are asked under the path's guidance and remembered by the state; target rows are
    asked under the target's, conditional and unconditional rows in calls of their own, so that a
    control never has to guess which is which.
    """

    def __init__(self, model: Denoiser, path: Trajectory, state: AttentionState) -> None:
        self.model, self.path, self.attention = model, path, state
        self.sources, self.name = path.xs.shape[1], model.name

    @property
    def nfe(self) -> int:
        """Network rows so far."""
        return self.model.nfe

    def grid(self, steps: int) -> Grid:
        """The noise levels of a walk of `steps` steps."""
        return self.model.grid(steps)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predict the guided noise in source rows and target rows."""
        s, done = self.sources, 1 - float(t / self.path.grid.t[-1])
        source = condition.samples(0, s, len(x))
        # The noise of a dual chain's source is known; only its attention is asked for.
        known, own = self.path.method == "dual-chain", self.path.condition
        source = (
            source.with_guidance(1)
            if known
            else source.with_guidance(own.guidance_scale, own.schedule)
        )
        target = condition.samples(s, len(x), len(x))
        first = self._ask(x[:s], t, source, ("source", "off"), 0.0)
        modes = ("target", "null" if self.attention.control.controls_unconditional else "off")
        return torch.cat([first, self._ask(x[s:], t, target, modes, done)])

    def _ask(
        self, x: Tensor, t: Tensor, condition: Condition, modes: tuple[str, str], done: float
    ) -> Tensor:
        with self.attention.set(modes[0], done):
            conditional = self.model(x, t, condition.with_guidance(1))
        with self.attention.set(modes[1], done):
            return guide_known(self.model, x, t, condition, conditional)


@torch.no_grad()
def edit(
    model: Denoiser,
    path: Trajectory,
    target: Condition,
    control: Control | None = None,
    *,
    blend: LocalBlend | np.ndarray | None = None,
    strength: float = 1.0,
    evaluate_at: str = "shifted",
) -> Edit:
    """Walk back from noise along a path of `invert`, under another prompt.

    Args:
        model: a denoiser; attention control needs one with a UNet.
        path: B inverted samples.
        target: one prompt, or K for each sample, all samples for the first of them, then for the
            next; its guidance scale and dynamic control are those of the targets.
        control: how the target's attention follows the source's; None leaves it alone.
        blend: where targets may differ from the source: a `LocalBlend` learns it from the attention of
            words, a mask [height, width] of the image or of its latents says it.
        strength: which share of the walk is walked again, in (0, 1].
        reading: of the dual chain, where the network is asked: "shifted" or "target".

    Raises:
        ValueError: another model's path, prompts that do not fit the samples, a mask of another
            size, a strength out of range, an unknown reading, or a control that changed nothing
            though the prompts differ.
    """
    _check(model, path, target, strength, evaluate_at)
    path = path.truncate(max(1, round(strength * path.grid.num_steps)))
    sources = path.xs.shape[1]
    count, before = max(1, len(target.text) // sources), model.nfe
    target = target.samples(0, count * sources, count * sources)
    if control is None and not isinstance(blend, LocalBlend):
        callback = _callback(path, target, count, _mask(blend, path))
        walk, state = _walk(model, path, target, callback, count, False, evaluate_at), None
    else:
        own = path.repeat(1).condition
        texts, nulls = ((own.text, target.text), (own.null, target.null))
        both = replace(target, text=torch.cat(texts), null=torch.cat(nulls))
        unet = getattr(model, "unet", None)
        with attention_control(
            unet, control or AttentionStore(), tuple(path.xs.shape[-2:])
        ) as state:  # type: ignore[arg-type]
            mask = blend if isinstance(blend, LocalBlend) else _mask(blend, path)
            callback = _callback(path, target, count, mask, state)
            pair = SourceTargetDenoiser(model, path, state)
            walk = _walk(pair, path, both, callback, count, True, evaluate_at)
        _check_change(state, own, target)
    return Edit(*walk, nfe=(model.nfe - before) / (count * sources), attention=state)


def _walk(
    model: Denoiser,
    path: Trajectory,
    condition: Condition,
    callback: Callback,
    count: int,
    trace_source: bool,
    evaluate_at: str,
) -> tuple[Trajectory, Trajectory]:
    """Walk `count` targets a sample back, after rows of the source if it is to be watched."""
    if path.method == "dual-chain":
        return dual_chain_edit(
            model, path, condition, callback, evaluate_at=evaluate_at, trace_source=trace_source
        )
    sources, both = path.xs.shape[1], path.repeat(count + trace_source)
    for name in OF_SOURCE:
        if name in both.kept:
            both.kept[name][:, sources * trace_source :] = 0
    walk = METHODS[path.method].sample(model, both, condition, callback)
    if not trace_source:
        return path, walk
    return replace(walk, xs=walk.xs[:, :sources]), replace(walk, xs=walk.xs[:, sources:])


def _callback(
    path: Trajectory,
    target: Condition,
    count: int,
    mask: Tensor | LocalBlend | None,
    state: AttentionState | None = None,
) -> Callback:
    """Put targets back on the stored chain: by the share of the anchor, and outside of a mask."""
    share = target.schedule.anchor if target.schedule else 0.0
    if share == 0 and mask is None:
        return identity

    def callback(x: Tensor, i: int) -> Tensor:
        stored = path.xs[i].repeat(count, 1, 1, 1)
        first, rest = x[: len(x) - len(stored)], x[len(x) - len(stored) :]
        free: Tensor | float = 1 - share
        if isinstance(mask, LocalBlend):
            assert state is not None
            done = 1 - float(path.grid.t[i] / path.grid.t[-1])
            free = free * (mask.mask(state).to(x) if done >= mask.start else 1)
        elif mask is not None:
            free = free * mask.to(x)
        return torch.cat([first, stored + free * (rest - stored)])

    return callback


def _mask(mask: np.ndarray | None, path: Trajectory) -> Tensor | None:
    """A mask of the image or of its latents as shares of each latent pixel [1, 1, H, W]."""
    if mask is None:
        return None
    height, width = path.xs.shape[-2:]
    ratio = mask.shape[0] // height if mask.ndim == 2 else 0
    if ratio < 1 or mask.shape != (ratio * height, ratio * width):
        raise ValueError(
            f"expected a mask of the image or of its latents, [{height}, {width}] or a "
            f"multiple, got {list(mask.shape)}: resize it first"
        )
    return F.avg_pool2d(torch.from_numpy(mask)[None, None].double(), ratio)


def _check(
    model: Denoiser, path: Trajectory, target: Condition, strength: float, evaluate_at: str
) -> None:
    if path.model != model.name:
        raise ValueError(
            f"expected a path of {model.name}, got one of {path.model or 'no model'}: "
            "invert the image with the model that is to edit it"
        )
    prompts, samples = len(target.text), path.xs.shape[1]
    if prompts > 1 and prompts % samples:
        raise ValueError(
            f"expected one target prompt, or as many for each of {samples} samples, got {prompts}"
        )
    if not 0 < strength <= 1:
        raise ValueError(f"expected strength in (0, 1], got {strength}")
    if evaluate_at not in EVALUATION_POINTS:
        raise ValueError(
            f"expected evaluate_at to be one of {', '.join(EVALUATION_POINTS)}, got {evaluate_at!r}"
        )


def _check_change(state: AttentionState, source: Condition, target: Condition) -> None:
    times = len(target.text) // len(source.text)
    differ = not torch.equal(source.text.repeat(times, 1, 1), target.text)
    if differ and not state.changed and not isinstance(state.control, AttentionStore):
        raise ValueError(
            f"{type(state.control).__name__} changed no attention: widen the share of the walk in "
            "which it acts, or edit with control=None"
        )


@torch.no_grad()
def sdedit_trajectory(
    model: Denoiser,
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
    generator, grid = generator or torch.Generator().manual_seed(0), model.grid(steps)
    noise = torch.randn(1, *x.shape[1:], generator=generator, dtype=torch.float64).to(x)
    xs = [x, *(grid.add_noise(x, noise, i) for i in range(1, steps + 1))]
    return Trajectory(grid, torch.stack(xs), condition, method="ddim", model=model.name)
