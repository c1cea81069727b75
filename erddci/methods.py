"""Every inversion method, side by side.

A method is a pair of functions of one shape:

* ``method(model, x, condition, grid, **options)`` inverts: from the image's latents to noise, and
* ``method_sample(model, path, condition, callback)`` samples back along what the first returned;
  `callback(x, i)` may change the latents with which each step arrives at node i.

Both return a `Trajectory`.  A method sees a model only as ``model(x, t, condition) -> ε``;
guidance is the condition's business, noise levels are the grid's.  The symbols are those of
`erddci.grid`; `erddci.inversion.METHODS` says of each method what it costs, what it stores and how
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
from erddci.notices import check_finite
from erddci.registry import lookup
from erddci.trajectory import Trajectory

# An inversion step from node i − 1 to node i cannot evaluate the network at x_i, which it does not
# have yet.  Both conventions evaluate it at x_{i−1}; they differ in the timestep: that of the node
# where the step arrives ("next"), or of the node where it starts ("current").
TIMESTEP_SHIFT = {"next": 0, "current": -1}

Callback = Callable[[Tensor, int], Tensor]


def identity(x: Tensor, i: int) -> Tensor:
    """Leave the latents at node i as they are."""
    return x


def ddim(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, timestep: str = "next"
) -> Trajectory:
    """DDIM inversion: exact only in the limit of small steps.

    `timestep` is that of the network in a step to node i: "next" t_i as most code has it,
    "current" t_{i−1} as textbooks have it.

    Source: DDIM (Song et al. 2021, 2010.02502), section 4.3.
    """
    shift = _timestep_shift(timestep)
    xs = [x]
    for i in grid.inversion_nodes():
        eps = model(x, grid.t[i + shift], condition)
        x = grid.step(x, eps, i - 1, i)
        xs.append(x)
    return Trajectory(grid, torch.stack(xs), condition)


def ddim_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling from the noise that inversion found."""
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
    """Fixed-point inversion: solve x_i = step(x_{i−1}, ε(x_i, t_i)), which DDIM sampling undoes.

    `rounds` is the number of substitutions a step; one is DDIM inversion.  Where guidance makes
    the step no contraction, they do not converge.

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
    memory: int = 3,
) -> Trajectory:
    """Accelerated fixed-point inversion: each round mixes the last few.

    `mixing` is "anderson" (AIDI_A, over `memory` rounds) or "average" (AIDI_E, of two rounds).

    Source: AIDI (Pan et al. 2023, 2309.04907).
    """
    mix = lookup(MIXINGS, mixing, "mixing")
    _check_rounds(rounds)
    xs = [x]
    for i in grid.inversion_nodes():
        guesses = [x]
        landed = []
        for _ in range(rounds):
            eps = model(guesses[-1], grid.t[i], condition)
            landed.append(grid.step(x, eps, i - 1, i))
            guesses.append(mix(guesses[-memory:], landed[-memory:]))
        x = guesses[-1]
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
    """ReNoise: repeat the step from the same latents `rounds` times, then along a mean of noises.

    The mean is over the last `average` of the rounds + 1 predictions.  The paper's regulariser of
    that noise, which serves editing, is left out.

    Source: ReNoise (Garibi et al. 2024, 2403.14602).
    """
    _check_rounds(average)
    xs = [x]
    for i in grid.inversion_nodes():
        start = x
        noises = []
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
    """SPDInv: minimise the squared error of the fixed point, by gradients through the network.

    Each step starts from DDIM inversion's and stops below `tolerance` (mean square) or after
    `rounds`.  The authors sample as `negative_prompt_sample` does.

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
    inverted trajectory; `per_step["null"][i − 1]` is that of the step from node i.  Learning rate
    and tolerance change along the trajectory as in the authors' code.

    Source: null-text inversion (Mokady et al. 2022, 2211.09794).
    """
    unguided = condition.with_guidance(1)
    path = ddim(model, x, unguided, grid)
    step = _null_text_step(model, condition, grid)

    def error(null: Tensor, x: Tensor, eps: Tensor, i: int) -> Tensor:
        return (step(null, x, eps, i) - path.xs[i - 1]).square().flatten(1).mean(1)

    x = path.xT
    null = condition.null.expand(len(x), -1, -1)
    if condition.guidance_scale == 1:  # then null embeddings have no effect
        return replace(path, per_step={"null": null.expand(grid.num_steps, -1, -1, -1)})
    nulls = []
    for i in grid.sampling_nodes():
        here = {"x": x, "eps": model(x, grid.t[i], unguided), "i": i}
        done = 1 - i / grid.num_steps
        rate = learning_rate * (1 - done / 2)
        null = _adam_per_sample(
            null, partial(error, **here), rounds, rate, tolerance * (1 + 100 * done)
        )
        nulls.append(null)
        x = step(null, **here)
    return replace(path, condition=condition, per_step={"null": torch.stack(nulls[::-1])})


def _null_text_step(model: Denoiser, condition: Condition, grid: Grid) -> Callable[..., Tensor]:
    """The guided step from x at node i along ε_c, as a function of the null embedding."""

    def step(null: Tensor, x: Tensor, eps: Tensor, i: int) -> Tensor:
        unconditional = model(x, grid.t[i], replace(condition, null=null).with_guidance(0))
        return grid.step(x, condition.guided(unconditional, eps, grid.t[i]), i, i - 1)

    return step


def null_text_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling in which every step has its own null embedding."""
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        eps = model(x, grid.t[i], replace(condition, null=path.per_step["null"][i - 1]))
        x = callback(grid.step(x, eps, i, i - 1), i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def negative_prompt(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, timestep: str = "next"
) -> Trajectory:
    """Negative-prompt inversion: DDIM inversion at w = 1.

    Source: negative-prompt inversion (Miyake et al. 2023, 2305.16807).
    """
    return ddim(model, x, condition.with_guidance(1), grid, timestep=timestep)


def negative_prompt_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling with the source prompt as negative prompt.

    Under the source prompt both predictions of guidance agree, so every w samples as w = 1 does.
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
    to zero.  Below timestep `freeze_below_t`, latents farther than `dilation` latent pixels from
    all others are put back on the inverted trajectory: under the source prompt, all of them.

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
    """Direct (PnP) Inversion: DDIM inversion at w = 1, and the offset of each guided step from it.

    `per_step["offset"][i − 1]` is added after the step from node i.

    Source: Direct Inversion (Ju et al. 2023, 2310.01506).
    """
    path = ddim(model, x, condition.with_guidance(1), grid, timestep=timestep)
    x = path.xT
    offsets = []
    for i in grid.sampling_nodes():
        x = grid.step(x, model(x, grid.t[i], condition), i, i - 1)
        offsets.append(path.xs[i - 1] - x)
        x = x + offsets[-1]  # as sampling will find it, to the last bit
    return replace(path, condition=condition, per_step={"offset": torch.stack(offsets[::-1])})


def direct_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDIM sampling, put back on the inverted trajectory by an offset after every step."""
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        x = grid.step(x, model(x, grid.t[i], condition), i, i - 1)
        x = callback(x + path.per_step["offset"][i - 1], i - 1)
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
    """Edit-friendly DDPM inversion: fresh noise at every node, and the noise maps between nodes.

    The nodes' noises are independent draws (of `generator`, a CPU generator; seed 0 if there is
    none), the same for all samples.  `per_step["map"][i − 1]` is what the mean of the DDPM step
    from node i leaves to node i − 1: the step's noise map times its standard deviation.

    Source: edit-friendly DDPM noise space (Huberman-Spiegelglas et al. 2023, 2304.06140).
    """
    generator = generator or torch.Generator().manual_seed(0)
    noise = torch.randn(grid.num_steps, 1, *x.shape[1:], generator=generator, dtype=torch.float64)
    xs = torch.stack([x, *(grid.add_noise(x, n.to(x), i) for i, n in enumerate(noise, 1))])
    x = xs[-1]
    maps = []
    for i in grid.sampling_nodes():
        mean = grid.step(x, model(x, grid.t[i], condition), i, i - 1, grid.ddpm_std(i))
        maps.append(xs[i - 1] - mean)
        x = mean + maps[-1]  # as sampling will find it, to the last bit
    return Trajectory(grid, xs, condition, per_step={"map": torch.stack(maps[::-1])})


def edit_friendly_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """DDPM sampling with the stored noise maps in place of fresh noise."""
    grid, x = path.grid, path.xT
    xs = [x]
    for i in grid.sampling_nodes():
        mean = grid.step(x, model(x, grid.t[i], condition), i, i - 1, grid.ddpm_std(i))
        x = callback(mean + path.per_step["map"][i - 1], i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def edict(
    model: Denoiser, x: Tensor, condition: Condition, grid: Grid, *, p: float = 0.93
) -> Trajectory:
    """EDICT: two chains that step along each other's noise, an affine coupling, and mix by `p`.

    `xs` is one chain, `per_node["y"]` the other; both start at the image.  Undoing the mixing
    divides by p twice a step, which makes float errors grow.

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
    constants = {"p": torch.tensor(p, dtype=torch.float64)}
    return Trajectory(grid, xs, condition, per_node={"y": ys}, constants=constants)


def edict_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """Undo `edict` step by step: the same calls in reverse order."""
    grid, p = path.grid, path.constants["p"]
    pairs = [torch.stack([path.xT, path.per_node["y"][-1]])]
    for i in grid.sampling_nodes():
        x, y = _swap_on_odd(pairs[-1], i)
        x = grid.step(x, model(y, grid.t[i], condition), i, i - 1)
        y = grid.step(y, model(x, grid.t[i], condition), i, i - 1)
        x = p * x + (1 - p) * y
        y = p * y + (1 - p) * x
        pairs.append(_swap_on_odd(torch.stack([callback(x, i - 1), callback(y, i - 1)]), i))
    xs, ys = torch.stack(pairs[::-1], dim=1)
    return replace(path, xs=xs, condition=condition, per_node={"y": ys})


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
    # Between nodes of equal noise level any weight is as accurate; 1 can be undone.
    gamma = torch.where(h[1:] == 0, 1, gamma)
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
    return Trajectory(grid, torch.stack(xs), condition, per_step={"gamma": gamma})


def two_step_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """Sample by BDIA's or O-BELM's formula from the last two latents of the inversion."""
    grid, gamma = path.grid, path.per_step["gamma"]
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
    """Dual-Chain Inversion: the auxiliary chain steps along the noise where the original arrives.

    The original chain z is DDIM inversion at w = 1.  The auxiliary chain x starts with it and goes
    to node i along ε(z_i, t_i).  Sampling can evaluate that noise again, so it retraces x exactly,
    for any network and prompt.  Stored are both chains and the noise: `xs` is the auxiliary chain,
    `per_node["z"]` the original one, `per_step["eps"][i − 1]` is ε(z_i, t_i).

    With `timestep` "next", as the authors have it, the NFE is 2N.  With "current", ε(z_i, t_i)
    also moves z on to node i + 1, and N + 1 are enough, but in few steps edits along that chain
    are worse.  Guidance acts on the auxiliary chain alone, at one more evaluation a guided step.

    Source: ERDDCI (Dai et al. 2024, 2410.14247), as its reconstruction code computes it; a guided
    auxiliary chain is our addition.
    """
    shift = _timestep_shift(timestep)
    unguided = condition.with_guidance(1)
    z = x
    zs, xs, noises = [z], [x], []
    eps_z = model(z, grid.t[1 + shift], unguided)
    for i in grid.inversion_nodes():
        z = grid.step(z, eps_z, i - 1, i)
        # In one batch: the noise of the auxiliary step to node i, and of the next original step.
        ahead = min(i + 1 + shift, grid.num_steps)
        eps_x, eps_z = _predict_at(model, z, grid, (i, ahead), unguided)
        eps_x = guide_known(model, z, grid.t[i], condition, eps_x)
        x = grid.step(x, eps_x, i - 1, i)
        zs.append(z)
        xs.append(x)
        noises.append(eps_x)
    per_node, per_step = {"z": torch.stack(zs)}, {"eps": torch.stack(noises)}
    return Trajectory(grid, torch.stack(xs), condition, per_node=per_node, per_step=per_step)


def dual_chain_sample(
    model: Denoiser, path: Trajectory, condition: Condition, callback: Callback = identity
) -> Trajectory:
    """Retrace the auxiliary chain along ε(z_i, t_i) of the stored original chain.

    Under the condition of the inversion that noise is stored too, and the NFE is 0; after an
    inversion at w = 1, another w needs N unconditional evaluations.  Under another prompt the
    noise is predicted anew, and the chain departs by the sum of Δσ times the difference of the
    two noises.
    """
    grid, x = path.grid, path.xT
    inverted = path.inversion_condition
    xs = [x]
    for i in grid.sampling_nodes():
        z, stored = path.per_node["z"][i], path.per_step["eps"][i - 1]
        if condition.equivalent(inverted):
            eps = stored
        elif condition.with_guidance(1).equivalent(inverted):
            eps = guide_known(model, z, grid.t[i], condition, stored)
        else:
            eps = model(z, grid.t[i], condition)
        x = callback(grid.step(x, eps, i, i - 1), i - 1)
        xs.append(x)
    return replace(path, xs=torch.stack(xs[::-1]), condition=condition)


def dual_chain_edit(
    model: Denoiser,
    path: Trajectory,
    condition: Condition,
    callback: Callback = identity,
    *,
    evaluate_at: str = "shifted",
    trace_source: bool = False,
) -> tuple[Trajectory, Trajectory]:
    """Edit along the dual chain: the source x retraces it, the target y departs by the edit alone.

    Both start at x_N.  The source steps along the stored noise, the target along what the network
    predicts for it.  With `evaluate_at` "shifted" that is evaluated at z_i + (y − x), as far from
    the original chain as the target is from the source: under the source's own prompt and guidance
    that is z_i itself, and the image comes back exactly.  With "target" it is evaluated at y.

    Args:
        trace_source: whether the network is evaluated at z_i too, in samples before the target's,
            for attention control to read.

    Returns:
        the source's and the targets' trajectory.

    Source: our formulation; the paper's editing algorithm was not available to us.
    """
    grid, x = path.grid, path.xT
    targets = len(condition.text) // len(x) - int(trace_source)
    y = x.repeat(targets, 1, 1, 1)
    xs, ys = [x], [y]
    for i in grid.sampling_nodes():
        z = path.per_node["z"][i]
        at = y + (z - x).repeat(targets, 1, 1, 1) if evaluate_at == "shifted" else y
        asked = torch.cat([z, at]) if trace_source else at
        eps = model(asked, grid.t[i], condition)[-len(y) :]
        x = grid.step(x, path.per_step["eps"][i - 1], i, i - 1)
        y = callback(grid.step(y, eps, i, i - 1), i - 1)
        xs.append(x)
        ys.append(y)
    target = replace(path, xs=torch.stack(ys[::-1]), condition=condition)
    return replace(path, xs=torch.stack(xs[::-1])), target


def _adam_per_sample(
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    rounds: int,
    learning_rate: float,
    tolerance: float,
) -> Tensor:
    """Minimise a loss per sample [B] by Adam, each sample until it is below `tolerance`.

    Half-precision starts are optimised in float32, and their loss is scaled, so that gradients
    through a half-precision network do not vanish.

    Returns:
        of each sample the best value met, which may be the start.

    Raises:
        NotFinite: a loss or a gradient that is.
    """
    value = start.to(torch.promote_types(start.dtype, torch.float32)).clone().requires_grad_()
    best = value.detach().clone()
    lowest = torch.full((len(start),), torch.inf, dtype=torch.float64).to(best)
    adam = torch.optim.Adam([value], learning_rate)
    with torch.enable_grad():
        for n in range(rounds + 1):
            losses = check_finite(loss(value), "in the loss of an optimisation", _REMEDY)
            better = losses < lowest
            lowest = losses.detach().to(lowest).minimum(lowest)
            best[better] = value.detach()[better]
            if n == rounds or (lowest < tolerance).all():
                break
            _step_scaled(adam, value, losses)
            value.data[lowest < tolerance] = best[lowest < tolerance]
    return best


_REMEDY = "take more steps, a smaller guidance scale or learning rate, or a network in float32"

# Gradients of a mean over latents are about 1e-6; float16 holds nothing below 6e-8.
LOSS_SCALE = 2.0**10


def _step_scaled(adam: torch.optim.Adam, value: Tensor, losses: Tensor) -> None:
    """One step of Adam, which is blind to the scale of the loss but for overflow."""
    scale = LOSS_SCALE
    while True:
        (gradient,) = torch.autograd.grad(scale * losses.sum(), value, retain_graph=True)
        if gradient.isfinite().all() or scale < 1:
            break
        scale /= 16
    value.grad = check_finite(gradient, "in the gradient of an optimisation", _REMEDY) / scale
    adam.step()


def _average(guesses: Sequence[Tensor], landed: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(landed[-2:])).mean(0)


def _anderson(guesses: Sequence[Tensor], landed: Sequence[Tensor]) -> Tensor:
    """Mix the landed by the weights, summing to 1, that make the mixed residual least."""
    residuals = torch.stack([g - z for z, g in zip(guesses, landed, strict=True)], 1).flatten(2)
    gram = residuals @ residuals.mT  # [B, m, m]
    size = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    # A floor of rounding size keeps the system solvable when residuals align or vanish.
    gram = gram + (1e-10 * size + torch.finfo(gram.dtype).tiny) * torch.eye(gram.shape[1]).to(gram)
    weights = torch.linalg.solve(gram / gram.amax((1, 2), True), torch.ones_like(gram[..., :1]))
    weights = weights / weights.sum(1, keepdim=True)  # [B, m, 1]
    return (weights[..., None, None] * torch.stack(list(landed), 1)).sum(1)


MIXINGS = {"anderson": _anderson, "average": _average}


def _check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise ValueError(f"expected at least one round, got {rounds}")


def _timestep_shift(timestep: str) -> int:
    return lookup(TIMESTEP_SHIFT, timestep, "timestep")


def _predict_at(
    model: Denoiser, x: Tensor, grid: Grid, nodes: Sequence[int], condition: Condition
) -> list[Tensor]:
    """Noise in x at the timesteps of several nodes in one batch, each distinct node once."""
    distinct = list(dict.fromkeys(nodes))
    t = grid.t[distinct].repeat_interleave(len(x))
    eps = model(x.repeat(len(distinct), 1, 1, 1), t, condition)
    by_node = dict(zip(distinct, eps.chunk(len(distinct)), strict=True))
    return [by_node[node] for node in nodes]
