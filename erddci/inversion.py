"""Every inversion method, side by side.

A method is a pair of functions of one shape:

* ``method(model, x, condition, grid, **options)`` walks from an image to noise, and
* ``method_back(model, path, condition)`` walks back along what the first one returned.

Both return a `Trajectory`.  A method sees a model only as ``model(x, t, condition) -> ε``;
guidance is the condition's business, noise levels are the grid's.  The symbols are those of
`erddci.grid`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from erddci.grid import Grid
from erddci.guidance import Condition, Denoiser
from erddci.trajectory import Trajectory

# A step from node i − 1 to node i cannot ask for the noise at x_i, which it does not have yet.
# Both conventions ask at x_{i−1}; they differ in the timestep that the network is told.
LAGS = {"target": 0, "source": -1}


def ddim(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, asks: str = "target"
) -> Trajectory:
    """Ordinary DDIM inversion: N network calls, exact only in the limit of small steps.

    `asks` is the timestep told to the network: "target" t_i as most code does, "source" t_{i−1}
    as textbooks do.

    Source: DDIM (Song et al. 2021, 2010.02502), section 4.3.
    """
    lag, xs = _lag(asks), [x]
    for i in grid.up():
        eps = model(x, grid.t[i + lag], condition)
        x = grid.move(x, eps, i - 1, i)
        xs.append(x)
    return Trajectory(grid, torch.stack(xs), condition)


def ddim_back(model: Denoiser, path: Trajectory, condition: Condition) -> Trajectory:
    """DDIM sampling from the noise that inversion found, at N network calls."""
    grid, x = path.grid, path.noise
    xs = [x]
    for i in grid.down():
        eps = model(x, grid.t[i], condition)
        x = grid.move(x, eps, i, i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def dual_chain(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, asks: str = "target"
) -> Trajectory:
    """Dual-Chain Inversion: the auxiliary chain moves along the noise where the original arrives.

    The original chain z is DDIM inversion.  The auxiliary chain x starts with it and climbs to
    node i along ε(z_i, t_i), which the way back can ask for again, so it retraces x exactly, for
    any network and prompt.  Both chains and the noise are kept: `xs` is the auxiliary chain,
    `kept["z"]` the original, `kept["eps"][i − 1]` is ε(z_i, t_i).

    Asked at "target" timesteps, as the authors do, it costs 2N network calls; at "source"
    timesteps ε(z_i, t_i) also moves z on to node i + 1, and N + 1 calls are enough.

    Source: ERDDCI (Dai et al. 2024, 2410.14247), as its reconstruction code computes it.
    """
    lag = _lag(asks)
    z, zs, xs, noise = x, [x], [x], []
    eps = model(z, grid.t[1 + lag], condition)
    for i in grid.up():
        z = grid.move(z, eps, i - 1, i)
        arrived, eps = _ask(model, z, grid, (i, min(i + 1 + lag, grid.steps)), condition)
        x = grid.move(x, arrived, i - 1, i)
        zs, xs, noise = [*zs, z], [*xs, x], [*noise, arrived]
    kept = {"z": torch.stack(zs), "eps": torch.stack(noise)}
    return Trajectory(grid, torch.stack(xs), condition, kept)


def dual_chain_back(model: Denoiser, path: Trajectory, condition: Condition) -> Trajectory:
    """Retrace the auxiliary chain along ε(z_i, t_i) of the kept original chain.

    Under the condition of the inversion that noise is kept too and no network call is made.
    Under another prompt or guidance scale it is asked for anew, and the chain leaves its track by
    the sum of Δσ times the difference of the two noises.
    """
    grid, x, z = path.grid, path.noise, path.kept["z"]
    known, xs = condition.same(path.condition), [x]
    for i in grid.down():
        eps = path.kept["eps"][i - 1] if known else model(z[i], grid.t[i], condition)
        x = grid.move(x, eps, i, i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


@dataclass(frozen=True)
class Method:
    """A method's two functions and what is to be known of it.

    `reversible` is "approximate", "exact" (an invertible map) or "exact given the stored chain".
    `calls` gives the network calls up and back for N steps with the options in `options`.
    """

    up: Callable[..., Trajectory]
    back: Callable[[Denoiser, Trajectory, Condition], Trajectory]
    reversible: str
    stores: str
    calls: Callable[[int], tuple[int, int]]
    source: str


METHODS = {
    "ddim": Method(
        ddim,
        ddim_back,
        reversible="approximate",
        stores="nothing",
        calls=lambda n: (n, n),
        source="Song et al. 2021, arXiv 2010.02502",
    ),
    "dual-chain": Method(
        dual_chain,
        dual_chain_back,
        reversible="exact given the stored chain",
        stores="N + 1 latents and N noises",
        calls=lambda n: (2 * n, 0),
        source="Dai et al. 2024, arXiv 2410.14247",
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

    Without a condition the path's own is used: the image should come back.

    Raises:
        ValueError: the path was made by another model or an unknown method.
    """
    if path.model != model.name:
        raise ValueError(
            f"expected a path of {model.name}, got one of {path.model or 'no model'}: "
            "invert the image with the model that is to reconstruct it"
        )
    before = model.rows
    back = _method(path.method).back(model, path, condition or path.condition)
    return replace(back, rows=(model.rows - before) / path.xs.shape[1])


def _method(name: str) -> Method:
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: expected one of {', '.join(METHODS)}")
    return METHODS[name]


def _lag(asks: str) -> int:
    if asks not in LAGS:
        raise ValueError(f"expected asks to be 'target' or 'source', got {asks!r}")
    return LAGS[asks]


def _ask(
    model: Denoiser, x: Tensor, grid: Grid, nodes: Sequence[int], condition: Condition
) -> list[Tensor]:
    """Noise in x at the timesteps of several nodes in one batch; a repeated node is asked once."""
    distinct = list(dict.fromkeys(nodes))
    t = grid.t[distinct].repeat_interleave(len(x))
    eps = model(x.repeat(len(distinct), 1, 1, 1), t, condition)
    answers = dict(zip(distinct, eps.chunk(len(distinct)), strict=True))
    return [answers[node] for node in nodes]
