"""Every inversion method, side by side.

A method is a pair of functions of one shape:

* ``method(model, x, condition, grid, **options)`` walks from an image to noise, and
* ``method_back(model, path, condition, callback)`` walks back along what the first one returned;
  `callback(x, i)` may change the latent with which each step arrives at node i.

Both return a `Trajectory`.  A method sees a model only as ``model(x, t, condition) -> ε``;
guidance is the condition's business, noise levels are the grid's.  The symbols are those of
`erddci.grid`; `erddci.inversion.METHODS` says of each method what it costs, what it keeps and how
exact it is.

Samples of a batch never influence each other, whatever a method iterates or optimises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from erddci.grid import Grid
from erddci.guidance import Condition, Denoiser, guide_known
from erddci.trajectory import Trajectory

# A step from node i − 1 to node i cannot ask for the noise at x_i, which it does not have yet.
# Both conventions ask at x_{i−1}; they differ in the timestep that the network is told.
TIMESTEPS = {"next": 0, "current": -1}

Callback = Callable[[Tensor, int], Tensor]


def identity(x: Tensor, i: int) -> Tensor:
    """Leave the latent at node i as it is."""
    return x


def ddim(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, timestep: str = "next"
) -> Trajectory:
    """Ordinary DDIM inversion: N network calls, exact only in the limit of small steps.

    `timestep` is the timestep told to the network: "target" t_i as most code does, "source" t_{i−1}
    as textbooks do.

    Source: DDIM (Song et al. 2021, 2010.02502), section 4.3.
    """
    shift, xs = _timestep_shift(timestep), [x]
    for i in grid.inversion_nodes():
        eps = model(x, grid.t[i + shift], condition)
        x = grid.step(x, eps, i - 1, i)
        xs.append(x)
    return Trajectory(grid, torch.stack(xs), condition)


def ddim_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling from the noise that inversion found, at N network calls."""
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        eps = model(x, grid.t[i], condition)
        x = callback(grid.step(x, eps, i, i - 1), i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def fixed_point(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, rounds: int = 10
) -> Trajectory:
    """Fixed-point inversion: solve x_i = ddim_step(x_{i−1}, ε(x_i, t_i)), which DDIM's way back undoes.

    `rounds` substitutions a step; one round is DDIM inversion.  Where guidance makes the step no
    contraction, rounds do not converge.

    Source: the implicit step that AIDI (Pan et al. 2023, 2309.04907) starts from.
    """
    _check_rounds(rounds)
    xs = [x]
    for i in grid.inversion_nodes():
        start = x
        for _ in range(rounds):
            x = grid.step(start, model(x, grid.t[i], condition), i - 1, i)
        xs.append(x)
    return Trajectory(grid, torch.stack(xs), condition)


def aidi(
    model: Denoiser,
    x: Tensor,
    condition: Condition,
    grid: Grid,
    *,
    rounds: int = 5,
    mixing: str = "anderson",
    window: int = 3,
) -> Trajectory:
    """Accelerated fixed-point inversion: each round mixes the last few.

    `mixing` is "anderson" (AIDI_A, over `window` rounds) or "average" (AIDI_E, of two rounds).

    Source: AIDI (Pan et al. 2023, 2309.04907).
    """
    if mixing not in MIXINGS:
        raise ValueError(f"expected mixing to be one of {', '.join(MIXINGS)}, got {mixing!r}")
    _check_rounds(rounds)
    xs = [x]
    for i in grid.inversion_nodes():
        start, asked, answers = x, [x], []
        for _ in range(rounds):
            eps = model(asked[-1], grid.t[i], condition)
            answers.append(grid.step(start, eps, i - 1, i))
            asked.append(MIXINGS[mixing](asked[-window:], answers[-window:]))
        x = asked[-1]
        xs.append(x)
    return Trajectory(grid, torch.stack(xs), condition)


def renoise(
    model: Denoiser,
    x: Tensor,
    condition: Condition,
    grid: Grid,
    *,
    rounds: int = 1,
    average: int = 2,
) -> Trajectory:
    """ReNoise: renoise the same latent `rounds` times, then step along a mean of the noises.

    The mean is over the last `average` of the rounds + 1 predictions.  The paper's regulariser of
    that noise, which serves editing, is left out.

    Source: ReNoise (Garibi et al. 2024, 2403.14602).
    """
    _check_rounds(average)
    xs = [x]
    for i in grid.inversion_nodes():
        start, noises = x, []
        for _ in range(rounds + 1):
            noises.append(model(x, grid.t[i], condition))
            x = grid.step(start, noises[-1], i - 1, i)
        x = grid.step(start, torch.stack(noises[-average:]).mean(0), i - 1, i)
        xs.append(x)
    return Trajectory(grid, torch.stack(xs), condition)


def spdinv(
    model: Denoiser,
    x: Tensor,
    condition: Condition,
    grid: Grid,
    *,
    rounds: int = 25,
    learning_rate: float = 1e-3,
    tolerance: float = 5e-6,
) -> Trajectory:
    """SPDInv: descend on the squared gap of the fixed point, by gradients through the network.

    Each step starts from DDIM inversion's and stops below `tolerance` (mean square) or after
    `rounds`.  Walk back with `negative_prompt_sample`, as the authors do.

    Source: SPDInv (Li et al. 2024, 2403.11105).
    """

    def gap(z: Tensor, start: Tensor, i: int) -> Tensor:
        landed = grid.step(start, model(z, grid.t[i], condition), i - 1, i)
        return (z - landed).square().flatten(1).mean(1)

    xs = [x]
    for i in grid.inversion_nodes():
        z = grid.step(x, model(x, grid.t[i], condition), i - 1, i)
        x = _adam_per_sample(z, partial(gap, start=x, i=i), rounds, learning_rate, tolerance)
        xs.append(x)
    return Trajectory(grid, torch.stack(xs), condition)


def null_text(
    model: Denoiser,
    x: Tensor,
    condition: Condition,
    grid: Grid,
    *,
    rounds: int = 10,
    learning_rate: float = 1e-2,
    tolerance: float = 1e-5,
) -> Trajectory:
    """Null-text inversion: DDIM inversion at w = 1, then a null embedding for each step at w.

    Each embedding is optimised until the guided step from where the last one led lands on the
    inverted path; `kept["null"][i − 1]` is that of the step from node i.  Rate and tolerance
    change along the walk as in the authors' code.  The condition's own w is optimised for.

    Source: null-text inversion (Mokady et al. 2022, 2211.09794).
    """
    path, w = ddim(model, x, condition.with_guidance(1), grid), condition.guidance_scale

    def step(null: Tensor, x: Tensor, eps: Tensor, i: int) -> Tensor:
        unconditional = model(x, grid.t[i], replace(condition, null=null).with_guidance(0))
        return grid.step(x, condition.guided(unconditional, eps, grid.t[i]), i, i - 1)

    def miss(null: Tensor, x: Tensor, eps: Tensor, i: int) -> Tensor:
        return (step(null, x, eps, i) - path.xs[i - 1]).square().flatten(1).mean(1)

    x, null = path.xT, condition.null.expand(len(x), -1, -1)
    nulls = [null] * grid.num_steps  # what they stay at w = 1, where they have no say
    for i in grid.sampling_nodes() if w != 1 else ():
        here = {"x": x, "eps": model(x, grid.t[i], condition.with_guidance(1)), "i": i}
        done = 1 - i / grid.num_steps
        rate, enough = learning_rate * (1 - done / 2), tolerance * (1 + 100 * done)
        null = nulls[i - 1] = _adam_per_sample(null, partial(miss, **here), rounds, rate, enough)
        x = step(null, **here)
    return replace(path, condition=condition, kept={"null": torch.stack(nulls)})


def null_text_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling in which every step has its own null embedding."""
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        eps = model(x, grid.t[i], replace(condition, null=path.kept["null"][i - 1]))
        x = callback(grid.step(x, eps, i, i - 1), i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def negative_prompt(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, timestep: str = "next"
) -> Trajectory:
    """Negative-prompt inversion: DDIM inversion at w = 1, whatever the condition's w.

    Source: negative-prompt inversion (Miyake et al. 2023, 2305.16807).
    """
    return ddim(model, x, condition.with_guidance(1), grid, timestep=timestep)


def negative_prompt_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling with the source prompt in place of the null one.

    Under the source prompt both rows of guidance agree, so every w walks as w = 1 does.
    """
    return ddim_sample(model, path, replace(condition, null=path.condition.text), callback)


def proximal_sample(
    model: Denoiser,
    path: Trajectory,
    condition: Condition,
    callback: Callback = identity,
    *,
    quantile: float = 0.7,
    freeze_below_t: int = 400,
    dilation: int = 1,
) -> Trajectory:
    """Negative-prompt sampling that is guided only where guidance is strong.

    Of the difference that guidance scales, entries below the `quantile` of its magnitude are set
    to zero.  Below timestep `freeze_below_t`, the latents away from all others (by `dilation` latent pixels)
    are put back on the inverted path, so under the source prompt the walk ends on it.

    Source: ProxEdit (Han et al. 2023, 2306.05414), with hard thresholds.
    """
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        source = model(x, grid.t[i], path.condition.with_guidance(1))
        difference = model(x, grid.t[i], condition.with_guidance(1)) - source
        size = difference.abs().flatten(1)
        strong = (size > size.quantile(quantile, 1, True)).reshape(x.shape).to(x)
        eps = condition.guided(source, source + strong * difference, grid.t[i])
        x = grid.step(x, eps, i, i - 1)
        if grid.t[i] < freeze_below_t:
            near = F.max_pool2d(strong, 2 * dilation + 1, stride=1, padding=dilation)
            x = torch.where(near > 0, x, path.xs[i - 1])
        x = callback(x, i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def direct(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, timestep: str = "next"
) -> Trajectory:
    """Direct (PnP) Inversion: DDIM inversion at w = 1, and what each guided step misses it by.

    `kept["offset"][i − 1]` is added after the step from node i.

    Source: Direct Inversion (Ju et al. 2023, 2310.01506).
    """
    path, offsets = ddim(model, x, condition.with_guidance(1), grid, timestep=timestep), []
    x = path.xT
    for i in grid.sampling_nodes():
        x = grid.step(x, model(x, grid.t[i], condition), i, i - 1)
        offsets.append(path.xs[i - 1] - x)
        x = x + offsets[-1]  # as the way back will find it, to the last bit
    kept = {"offset": torch.stack(offsets[::-1])}
    return replace(path, condition=condition, kept=kept)


def direct_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling, put back on the inverted path by an offset after every step."""
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        x = grid.step(x, model(x, grid.t[i], condition), i, i - 1)
        x = callback(x + path.kept["offset"][i - 1], i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def edit_friendly(
    model: Denoiser,
    x: Tensor,
    condition: Condition,
    grid: Grid,
    *,
    generator: torch.Generator | None = None,
) -> Trajectory:
    """Edit-friendly DDPM inversion: noise the image at every node anew, and keep what is missed.

    The nodes' noises are independent draws (of `generator`, a CPU generator; seed 0 if there is
    none), the same for all samples.  `kept["map"][i − 1]` is what the mean of the DDPM step from
    node i leaves to node i − 1: the step's noise map times its standard deviation.

    Source: edit-friendly DDPM noise space (Huberman-Spiegelglas et al. 2023, 2304.06140).
    """
    generator = generator or torch.Generator().manual_seed(0)
    noise = torch.randn(grid.num_steps, 1, *x.shape[1:], generator=generator, dtype=torch.float64)
    xs = torch.stack([x, *(grid.add_noise(x, n.to(x), i) for i, n in enumerate(noise, 1))])
    x, maps = xs[-1], []
    for i in grid.sampling_nodes():
        mean = grid.step(x, model(x, grid.t[i], condition), i, i - 1, grid.ddpm_std(i))
        maps.append(xs[i - 1] - mean)
        x = mean + maps[-1]  # as the way back will find it, to the last bit
    return Trajectory(grid, xs, condition, {"map": torch.stack(maps[::-1])})


def edit_friendly_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDPM sampling with the kept noise maps in place of fresh noise."""
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        mean = grid.step(x, model(x, grid.t[i], condition), i, i - 1, grid.ddpm_std(i))
        x = callback(mean + path.kept["map"][i - 1], i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def edict(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, p: float = 0.93
) -> Trajectory:
    """EDICT: two chains that move each other, an affine coupling, and are mixed by `p`.

    `xs` is one chain, `kept["y"]` the other; both start at the image.  Undoing the mixing divides
    by p twice a step, which makes float errors grow.

    Source: EDICT (Wallace et al. 2022, 2211.12446).
    """
    if not 0 < p <= 1:
        raise ValueError(f"expected p in (0, 1], got {p}: undoing the mixing divides by it")
    pairs = [torch.stack([x, x])]
    for i in grid.inversion_nodes():
        x, y = _swap_on_odd(pairs[-1], i)
        y = (y - (1 - p) * x) / p
        x = (x - (1 - p) * y) / p
        y = grid.step(y, model(x, grid.t[i], condition), i - 1, i)
        x = grid.step(x, model(y, grid.t[i], condition), i - 1, i)
        pairs.append(_swap_on_odd(torch.stack([x, y]), i))
    xs, ys = torch.stack(pairs, dim=1)
    return Trajectory(grid, xs, condition, {"y": ys, "p": torch.tensor(p, dtype=torch.float64)})


def edict_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """Undo `edict` step by step: the same calls in reverse order."""
    grid, p = path.grid, path.kept["p"]
    pairs = [torch.stack([path.xT, path.kept["y"][-1]])]
    for i in grid.sampling_nodes():
        x, y = _swap_on_odd(pairs[-1], i)
        x = grid.step(x, model(y, grid.t[i], condition), i, i - 1)
        y = grid.step(y, model(x, grid.t[i], condition), i, i - 1)
        x = p * x + (1 - p) * y
        y = p * y + (1 - p) * x
        pairs.append(_swap_on_odd(torch.stack([callback(x, i - 1), callback(y, i - 1)]), i))
    xs, ys = torch.stack(pairs[::-1], dim=1)
    return replace(path, xs=xs, condition=condition, kept={**path.kept, "y": ys})


def _swap_on_odd(pair: Tensor, i: int) -> Tensor:
    # EDICT's chains take turns to go first.
    return pair.flip(0) if i % 2 else pair


def bdia(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, gamma: float = 1.0
) -> Trajectory:
    """BDIA: a two-step formula, symmetric in time, that determines either end from the other two.

    `gamma` is how much of the last step's asymmetry is undone, in [0, 1]: 0 is DDIM, which
    cannot be undone.

    Source: BDIA (Zhang et al. 2023, 2307.10829).
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"expected gamma in [0, 1], got {gamma}")
    return _two_step(
        model, x, condition, grid, torch.full((grid.num_steps,), gamma, dtype=torch.float64)
    )


def belm(model: Denoiser, x: Tensor, condition: Condition, grid: Grid) -> Trajectory:
    """O-BELM: the two-step formula whose weights make its local error of third order.

    It is BDIA with γ_i = (h_i/h_{i+1})²·√(ᾱ_{i−1}/ᾱ_{i+1}), where h_i = σ_i − σ_{i−1}.

    Source: BELM (Wang et al. 2024, 2410.07273).
    """
    h, root = grid.sigmas.diff(), grid.alphas.sqrt()
    gamma = (h[:-1] / h[1:]) ** 2 * root[:-2] / root[2:]
    return _two_step(model, x, condition, grid, torch.cat([torch.zeros(1), gamma]))


def _two_step(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, gamma: Tensor
) -> Trajectory:
    """Solve x_{i−1} = x_{i→i−1} + γ_i(x_{i+1} − x_{i→i+1}) for x_{i+1}, node by node.

    x_{i→j} is the DDIM step from x_i along ε(x_i, t_i).  Where γ_i is 0, and from the image, there
    is nothing to solve and x_{i→i+1} is taken.
    """
    xs = [x]
    for n in grid.inversion_nodes():
        i, x = n - 1, xs[-1]
        eps = model(x, grid.t[i], condition)
        step = grid.step(x, eps, i, n)
        if gamma[i] != 0 and i > 0:
            step = step + (xs[i - 1] - grid.step(x, eps, i, i - 1)) / gamma[i]
        xs.append(step)
    return Trajectory(grid, torch.stack(xs), condition, {"gamma": gamma})


def two_step_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """Walk BDIA's or O-BELM's formula down from the last two latents of the path."""
    grid, gamma = path.grid, path.kept["gamma"]
    xs = [path.xs[-1], path.xs[-2]]
    for i in range(grid.num_steps - 1, 0, -1):
        above, x = xs[-2:]
        eps = model(x, grid.t[i], condition)
        excess = above - grid.step(x, eps, i, i + 1)
        xs.append(callback(grid.step(x, eps, i, i - 1) + gamma[i] * excess, i - 1))
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def dual_chain(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, timestep: str = "next"
) -> Trajectory:
    """Dual-Chain Inversion: the auxiliary chain moves along the noise where the original arrives.

    The original chain z is DDIM inversion at w = 1.  The auxiliary chain x starts with it and
    climbs to node i along ε(z_i, t_i), which the way back can ask for again, so it retraces x
    exactly, for any network and prompt.  Both chains and the noise are kept: `xs` is the auxiliary
    chain, `kept["z"]` the original, `kept["eps"][i − 1]` is ε(z_i, t_i).

    Asked at "target" timesteps, as the authors do, it costs 2N network calls; at "source"
    timesteps ε(z_i, t_i) also moves z on to node i + 1, and N + 1 calls are enough, but in few
    steps edits along that chain are worse.  Under guidance only the auxiliary chain is guided, at
    an unconditional call more for each guided step.

    Source: ERDDCI (Dai et al. 2024, 2410.14247), as its reconstruction code computes it; a guided
    auxiliary chain is our addition.
    """
    shift, xs, plain = _timestep_shift(timestep), [x], condition.with_guidance(1)
    z, zs, noise = x, [x], []
    ahead = model(z, grid.t[1 + shift], plain)
    for i in grid.inversion_nodes():
        z = grid.step(z, ahead, i - 1, i)
        arrived, ahead = _predict_at(
            model, z, grid, (i, min(i + 1 + shift, grid.num_steps)), plain
        )
        arrived = guide_known(model, z, grid.t[i], condition, arrived)
        x = grid.step(x, arrived, i - 1, i)
        zs, xs, noise = [*zs, z], [*xs, x], [*noise, arrived]
    kept = {"z": torch.stack(zs), "eps": torch.stack(noise)}
    return Trajectory(grid, torch.stack(xs), condition, kept)


def dual_chain_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """Retrace the auxiliary chain along ε(z_i, t_i) of the kept original chain.

    Under the condition of the inversion that noise is kept too and no network call is made; if
    the inversion was at w = 1, another w needs N unconditional calls.  Under another prompt the
    noise is asked for anew, and the chain leaves its track by the sum of Δσ times the difference
    of the two noises.
    """
    grid, x, z, kept = path.grid, path.xT, path.kept["z"], path.kept["eps"]
    known, plain = (c.equivalent(path.condition) for c in (condition, condition.with_guidance(1)))
    xs = [x]
    for i in grid.sampling_nodes():
        if known:
            eps = kept[i - 1]
        elif plain:
            eps = guide_known(model, z[i], grid.t[i], condition, kept[i - 1])
        else:
            eps = model(z[i], grid.t[i], condition)
        x = callback(grid.step(x, eps, i, i - 1), i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def _adam_per_sample(
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    rounds: int,
    learning_rate: float,
    tolerance: float,
) -> Tensor:
    """Lower a loss per sample [B] by Adam, each sample until it is below `tolerance`.

    Returns:
        of each sample the best value met, which may be the start.
    """
    value, best = start.clone().requires_grad_(), start.clone()
    lowest = torch.full((len(start),), torch.inf).to(start)
    adam = torch.optim.Adam([value], learning_rate)
    with torch.enable_grad():
        for n in range(rounds + 1):
            losses = loss(value)
            better = losses < lowest
            lowest, best[better] = losses.detach().minimum(lowest), value.detach()[better]
            if n == rounds or (lowest < tolerance).all():
                break
            adam.zero_grad()
            losses.sum().backward()
            adam.step()
            value.data[lowest < tolerance] = best[lowest < tolerance]
    return best


def _average(asked: Sequence[Tensor], answers: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(answers[-2:])).mean(0)


def _anderson(asked: Sequence[Tensor], answers: Sequence[Tensor]) -> Tensor:
    """Mix answers by the weights, summing to 1, that make the mixed residual least."""
    residuals = torch.stack([g - z for z, g in zip(asked, answers, strict=True)], 1).flatten(2)
    gram = residuals @ residuals.mT  # [B, m, m]
    size = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    # A floor of rounding size keeps the system solvable when residuals align or vanish.
    gram = gram + (1e-10 * size + torch.finfo(gram.dtype).tiny) * torch.eye(gram.shape[1]).to(gram)
    weights = torch.linalg.solve(gram / gram.amax((1, 2), True), torch.ones_like(gram[..., :1]))
    weights = weights / weights.sum(1, keepdim=True)  # [B, m, 1]
    return (weights[..., None, None] * torch.stack(list(answers), 1)).sum(1)


MIXINGS = {"anderson": _anderson, "average": _average}


def _check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise ValueError(f"expected at least one round, got {rounds}")


def _timestep_shift(timestep: str) -> int:
    if timestep not in TIMESTEPS:
        raise ValueError(f"expected timestep to be 'next' or 'current', got {timestep!r}")
    return TIMESTEPS[timestep]


def _predict_at(
    model: Denoiser, x: Tensor, grid: Grid, nodes: Sequence[int], condition: Condition
) -> list[Tensor]:
    """Noise in x at the timesteps of several nodes in one batch; a repeated node is asked once."""
    distinct = list(dict.fromkeys(nodes))
    t = grid.t[distinct].repeat_interleave(len(x))
    eps = model(x.repeat(len(distinct), 1, 1, 1), t, condition)
    answers = dict(zip(distinct, eps.chunk(len(distinct)), strict=True))
    return [answers[node] for node in nodes]
