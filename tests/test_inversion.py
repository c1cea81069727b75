"""Every inversion method: against diffusers, against formulas, and by what each promises."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

import erddci
from erddci import METHODS, GuidanceSchedule, Trajectory, invert, reconstruct
from erddci.toy import Mixture

TIMESTEPS = ("next", "current")
PROMPT = "a small red matte cube on a teal floor"
EXACT = [name for name, method in METHODS.items() if method.reversible != "approximate"]
OPTIONS = [
    *[(name, {}) for name in METHODS],
    *[(name, {"timestep": "current"}) for name in ("ddim", "direct", "dual-chain")],
    ("aidi", {"mixing": "average"}),
    ("bdia", {"gamma": 0.7}),
]
EXACT_OPTIONS = [(name, options) for name, options in OPTIONS if name in EXACT]


def there_and_back(model, x, condition, method="dual-chain", steps=10, **options):
    # Where both ways are common, coming back is promised under the guidance of the inversion.
    guided = True if METHODS[method].both_common else None
    path = invert(model, x, condition, method, steps, guided=guided, **options)
    return path, reconstruct(model, path)


# Against diffusers and against a second implementation.


def test_ddim_walks_as_the_schedulers_of_diffusers(tiny, latents):
    condition = tiny.condition(PROMPT, guidance_scale=2)
    path, back = there_and_back(tiny, latents, condition, "ddim", 10)

    up, x = DDIMInverseScheduler.from_config(tiny.scheduler.config), latents
    up.set_timesteps(10)
    with torch.no_grad():
        for i, t in enumerate(up.timesteps, 1):
            x = up.step(tiny(x, t, condition), t, x).prev_sample
            torch.testing.assert_close(path.xs[i], x, rtol=1e-4, atol=1e-4)
        down = DDIMScheduler.from_config(tiny.scheduler.config)
        down.set_timesteps(10)
        for i, t in enumerate(down.timesteps, 1):
            x = down.step(tiny(x, t, condition), t, x).prev_sample
            torch.testing.assert_close(back.xs[10 - i], x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("timestep", TIMESTEPS)
@pytest.mark.parametrize("w", [1, 3])
def test_dual_chain_by_its_definition(toy, points, timestep, w):
    # In y = x/√ᾱ a step is y ← y + Δσ·ε: the original chain z moves along the noise where it
    # stands, at w = 1, the auxiliary chain along the guided noise where the original arrives.
    condition, grid = toy.condition("left", w), toy.grid(20)
    path = invert(toy, points, condition, "dual-chain", 20, guided=True, timestep=timestep)
    scale = grid.alphas.sqrt()
    z = x = points / scale[0]
    for i in range(1, 21):
        change = grid.sigmas[i] - grid.sigmas[i - 1]
        told = grid.t[i] if timestep == "next" else grid.t[i - 1]
        z = z + change * toy(z * scale[i - 1], told, condition.with_guidance(1))
        eps = toy(z * scale[i], grid.t[i], condition)
        x = x + change * eps
        torch.testing.assert_close(path.per_node["z"][i], z * scale[i])
        torch.testing.assert_close(path.per_step["eps"][i - 1], eps)
        torch.testing.assert_close(path.xs[i], x * scale[i])


@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_original_chain_is_ddim_inversion(toy, points, timestep):
    condition = toy.condition("right")
    dual = invert(toy, points, condition, "dual-chain", 20, timestep=timestep)
    plain = invert(toy, points, condition, "ddim", 20, timestep=timestep)
    torch.testing.assert_close(dual.per_node["z"], plain.xs)
    assert (dual.xT - plain.xT).abs().max() > 1e-3


# What is exact, and what is not.


@pytest.mark.parametrize("w", [1, 0, 7.5, -2])
@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize(("method", "options"), EXACT_OPTIONS)
def test_exact_methods_return_to_the_point(toy, points, method, options, steps, w):
    path, back = there_and_back(toy, points, toy.condition("left", w), method, steps, **options)
    assert torch.equal(path.x0, points)
    # The chain leaves the unit scale under strong guidance, and float64 is exact up to scale.
    assert path.latent_error(back).max() < 1e-10 * max(1, path.xs.abs().max())


@pytest.mark.parametrize("w", [1, 7.5])
@pytest.mark.parametrize("prompt", [PROMPT, ""])
@pytest.mark.parametrize(("method", "options"), EXACT_OPTIONS)
def test_exact_methods_return_to_the_latent(tiny64, latents, method, options, prompt, w):
    condition = tiny64.condition(prompt, guidance_scale=w)
    path, back = there_and_back(tiny64, latents, condition, method, **options)
    assert path.latent_error(back).max() < 1e-10 * max(1, path.xs.abs().max())


@pytest.mark.parametrize("w", [1, 0, 7.5, -2])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in EXACT])
def test_other_methods_walk_at_any_guidance_in_few_steps(tiny, latents, method, steps, w):
    condition = tiny.condition("", guidance_scale=w)
    path, back = there_and_back(tiny, latents, condition, method, steps)
    assert path.xs.isfinite().all() and back.xs.isfinite().all()


@pytest.mark.parametrize(("network", "limit"), [("tiny", 1e-4), ("tiny64", 1e-10)])
def test_asking_the_network_again_is_exact_too(network, limit, latents, request):
    model = request.getfixturevalue(network)
    path = invert(model, latents, model.condition(PROMPT), steps=10)
    # One prompt for each sample counts as another condition, so the kept noise is not used.
    each = replace(path.condition, text=path.condition.text.repeat(2, 1, 1))
    back = reconstruct(model, path, each)
    assert back.nfe == 10
    assert path.latent_error(back).max() < limit


def test_ddim_does_not_return_and_its_error_accumulates(tiny64, latents):
    path, back = there_and_back(tiny64, latents, tiny64.condition(PROMPT), "ddim")
    drift = path.latent_error(back)
    assert (drift[-1] == 0).all() and (drift[0] > 1e-2).all()
    assert (drift[0] > drift[5]).all()


@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_error_of_ddim_is_of_first_order_and_that_of_dual_chain_is_none(toy, points, timestep):
    steps = [50, 100, 200, 500]

    def errors(method):
        walks = [
            there_and_back(toy, points, toy.condition("left"), method, count, timestep=timestep)
            for count in steps
        ]
        return torch.stack([path.latent_error(back)[0] for path, back in walks])

    times = torch.tensor(steps).double().log()
    logs = errors("ddim").log()
    slopes = torch.linalg.lstsq(torch.stack([times, torch.ones(4).double()], 1), logs).solution[0]
    assert (slopes < -0.85).all() and (slopes > -1.15).all()
    assert errors("dual-chain").max() < 1e-11


@pytest.mark.parametrize("timestep", TIMESTEPS)
@pytest.mark.parametrize("w", [0, 3, 7.5])
def test_error_under_guidance_is_the_sum_of_guided_differences(toy, points, timestep, w):
    # y'_0 − y_0 = −(w − 1)·Σ Δσ_i (ε_c − ε_u)(z_i), all of it known after inversion.
    condition = toy.condition("left")
    path = invert(toy, points, condition, "dual-chain", 20, guided=True, timestep=timestep)
    back = reconstruct(toy, path, condition.with_guidance(w))
    grid, expected = path.grid, torch.zeros_like(points)
    for i in range(1, 21):
        z = path.per_node["z"][i]
        guided = toy(z, grid.t[i], condition) - toy(z, grid.t[i], condition.with_guidance(0))
        expected -= (w - 1) * (grid.sigmas[i] - grid.sigmas[i - 1]) * guided
    error = (back.x0 - path.x0) / grid.alphas[0].sqrt()
    torch.testing.assert_close(error, expected, rtol=1e-9, atol=1e-9)
    assert error.abs().max() > 0.1


# Each method by what its paper states.


def slope(steps, errors):
    """Exponents p of errors ~ steps**p, one for each column of errors [len(steps), K]."""
    times = torch.tensor(steps).double().log()
    basis = torch.stack([times, torch.ones(len(steps)).double()], 1)
    return torch.linalg.lstsq(basis, errors.log()).solution[0]


def test_one_round_of_fixed_point_is_ddim_and_many_satisfy_its_equation(toy, points):
    condition = toy.condition("left")
    once = invert(toy, points, condition, "fixed-point", 20, rounds=1)
    assert torch.equal(once.xs, invert(toy, points, condition, "ddim", 20).xs)

    def gap(method, rounds, **options):
        path = invert(toy, points, condition, method, 20, rounds=rounds, **options)
        landed = [
            path.grid.step(path.xs[i - 1], toy(path.xs[i], path.grid.t[i], condition), i - 1, i)
            for i in range(1, 21)
        ]
        return (path.xs[1:] - torch.stack(landed)).abs().max()

    gaps = [gap("fixed-point", rounds) for rounds in (1, 5, 20, 60)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-12
    assert gap("aidi", 60, mixing="average") < 1e-6
    # Anderson's mixing needs fewer rounds than plain substitution.
    assert gap("aidi", 6) < 1e-2 * gap("fixed-point", 6)
    path, back = there_and_back(toy, points, condition, "fixed-point", 20, rounds=60)
    assert path.latent_error(back).max() < 1e-11


def test_renoise_over_one_prediction_is_fixed_point(toy, points):
    condition = toy.condition("left")
    one = invert(toy, points, condition, "renoise", 10, rounds=3, average=1)
    same = invert(toy, points, condition, "fixed-point", 10, rounds=4)
    torch.testing.assert_close(one.xs, same.xs)
    # Otherwise a step moves along the mean of the last predictions.
    path, grid = invert(toy, points, condition, "renoise", 1, rounds=1, average=2), toy.grid(1)
    first = toy(points, grid.t[1], condition)
    second = toy(grid.step(points, first, 0, 1), grid.t[1], condition)
    torch.testing.assert_close(path.xT, grid.step(points, (first + second) / 2, 0, 1))


def test_spdinv_closes_the_gap_of_the_fixed_point(toy, points):
    condition, grid = toy.condition("left"), toy.grid(5)
    options = {"rounds": 400, "learning_rate": 0.05, "tolerance": 1e-9}
    path = invert(toy, points, condition, "spdinv", 5, **options)
    for i in range(1, 6):
        x = path.xs[i - 1]

        def gap(z, x=x, i=i):
            landed = grid.step(x, toy(z, grid.t[i], condition), i - 1, i)
            return (z - landed).square().flatten(1).mean(1)

        plain = grid.step(x, toy(x, grid.t[i], condition), i - 1, i)
        assert (gap(path.xs[i]) < torch.maximum(0.1 * gap(plain), torch.tensor(1e-9))).all()


def test_null_text_lowers_its_loss_at_every_step_and_beats_ddim(scenes):
    example = erddci.examples()[0]
    x = scenes.encode(example.image)
    condition = scenes.condition(example.source, guidance_scale=7.5)
    path, back = there_and_back(scenes, x, condition, "null-text", 10)
    grid, null = path.grid, condition.null
    for i in range(10, 0, -1):

        def miss(null, i=i):
            with torch.no_grad():
                eps = scenes(back.xs[i], grid.t[i], replace(condition, null=null))
            landed = grid.step(back.xs[i], eps, i, i - 1)
            return (landed - path.xs[i - 1]).square().mean()

        assert miss(path.per_step["null"][i - 1]) <= miss(null) * (1 + 1e-6)
        null = path.per_step["null"][i - 1]
    ddim = invert(scenes, x, condition.with_guidance(1), "ddim", 10)
    assert torch.equal(ddim.xs, path.xs)
    assert (
        path.latent_error(back)[0]
        < 0.5 * ddim.latent_error(reconstruct(scenes, ddim, condition))[0]
    )


@pytest.mark.parametrize("w", [0, 1, 7.5, -2])
def test_negative_prompt_at_any_guidance_is_ddim_at_one(tiny64, latents, w):
    condition = tiny64.condition(PROMPT, guidance_scale=w)
    path, back = there_and_back(tiny64, latents, condition, "negative-prompt")
    ddim, plain = there_and_back(tiny64, latents, condition.with_guidance(1), "ddim")
    assert torch.equal(path.xs, ddim.xs)
    torch.testing.assert_close(back.xs, plain.xs)


def test_proximal_leaves_the_path_only_where_guidance_is_strong(tiny64, latents):
    source, target = tiny64.condition(PROMPT), tiny64.condition("a red cone", guidance_scale=7.5)
    path, back = there_and_back(tiny64, latents, source, "proximal", 20)
    assert torch.equal(back.x0, path.x0)
    edited = reconstruct(tiny64, path, target)
    free = (edited.x0 != path.x0).double().mean()
    assert 0 < free < 1


def test_direct_puts_the_source_back_on_the_inverted_path(tiny64, latents):
    condition = tiny64.condition(PROMPT, guidance_scale=7.5)
    path, back = there_and_back(tiny64, latents, condition, "direct")
    ddim = invert(tiny64, latents, condition.with_guidance(1), "ddim", 10)
    assert torch.equal(path.xs, ddim.xs)
    torch.testing.assert_close(back.xs, ddim.xs, rtol=0, atol=1e-12)
    assert path.per_step["offset"].abs().max() > 1e-3


def test_edit_friendly_walks_as_a_ddpm_scheduler_fed_with_its_maps(tiny64, latents):
    condition = tiny64.condition(PROMPT, guidance_scale=2)
    path, back = there_and_back(tiny64, latents, condition, "edit-friendly", 10)
    down, x = DDIMScheduler.from_config(tiny64.scheduler.config), path.xT
    down.set_timesteps(10)
    with torch.no_grad():
        for i, t in zip(range(10, 0, -1), down.timesteps, strict=True):
            noise = path.per_step["map"][i - 1] / path.grid.ddpm_std(i)
            eps = tiny64(x, t, condition)
            x = down.step(eps, t, x, eta=1, variance_noise=noise).prev_sample
            torch.testing.assert_close(back.xs[i - 1], x, rtol=1e-4, atol=1e-4)


def test_edit_friendly_noises_the_image_independently_at_every_node(tiny, latents):
    condition = tiny.condition(PROMPT)
    first, same, other = (
        invert(tiny, latents, condition, "edit-friendly", 10, generator=generator)
        for generator in (None, *(torch.Generator().manual_seed(seed) for seed in (0, 1)))
    )
    assert torch.equal(first.xs, same.xs) and not torch.equal(first.xs, other.xs)
    a = first.grid.alphas[1:].reshape(-1, 1, 1, 1, 1)
    noise = (first.xs[1:] - a.sqrt() * latents) / (1 - a).sqrt()
    torch.testing.assert_close(noise[:, 0], noise[:, 1])
    rows = noise[:, 0].flatten(1)
    alike = torch.corrcoef(rows) - torch.eye(10)
    assert alike.abs().max() < 0.25 and (rows.std(1) - 1).abs().max() < 0.2


def test_unmixed_edict_is_a_leapfrog_on_a_grid_with_every_node_twice(toy, points, monkeypatch):
    # At p = 1 and with x always first, EDICT is the two-step formula s_{k−1} = s_{k+1} − Δσ·ε(s_k)
    # of BELM's family, on the sequence y_0, x_0, y_1, x_1, …
    monkeypatch.setattr("erddci.methods._swap_on_odd", lambda pair, i: pair)
    condition, grid = toy.condition("left"), toy.grid(10)
    path, back = there_and_back(toy, points, condition, "edict", 10, p=1.0)
    assert path.latent_error(back).max() < 1e-12
    s = torch.stack([path.per_node["y"], path.xs], 1).flatten(0, 1)
    scale, sigmas, t = (
        each.repeat_interleave(2) for each in (grid.alphas.sqrt(), grid.sigmas, grid.t)
    )
    for k in range(1, 21):
        # The chain that moves second is asked at the timestep where its step starts.
        eps = toy(s[k], t[k + 1] if k % 2 else t[k], condition)
        expected = s[k + 1] / scale[k + 1] - (sigmas[k + 1] - sigmas[k - 1]) * eps
        torch.testing.assert_close(s[k - 1] / scale[k - 1], expected)


def test_bdia_without_symmetry_is_ddim(toy, points):
    condition = toy.condition("left")
    path, back = there_and_back(toy, points, condition, "bdia", 20, gamma=0.0)
    ddim = invert(toy, points, condition, "ddim", 20, timestep="current")
    torch.testing.assert_close(path.xs, ddim.xs)
    x = path.xs[19]
    for i in range(19, 0, -1):
        x = path.grid.step(x, toy(x, path.grid.t[i], condition), i, i - 1)
        torch.testing.assert_close(back.xs[i - 1], x)


def test_bdia_and_belm_satisfy_the_formulas_of_their_papers(toy, points):
    condition, grid = toy.condition("left"), toy.grid(20)
    a, root = grid.alphas, grid.alphas.sqrt()
    h = torch.cat([torch.zeros(1), grid.sigmas.diff()])  # h_i = σ_i − σ_{i−1}
    bdia = invert(toy, points, condition, "bdia", 20, gamma=0.8).xs
    belm = invert(toy, points, condition, "belm", 20).xs
    for i in range(1, 20):
        eps = toy(bdia[i], grid.t[i], condition)
        clean = (bdia[i] - (1 - a[i]).sqrt() * eps) / root[i]
        up, down = (root[j] * clean + (1 - a[j]).sqrt() * eps for j in (i + 1, i - 1))
        torch.testing.assert_close(bdia[i - 1], 0.8 * (bdia[i + 1] - up) + down)
        r = h[i] / h[i + 1]
        expected = (
            r**2 * root[i - 1] / root[i + 1] * belm[i + 1]
            + (1 - r**2) * root[i - 1] / root[i] * belm[i]
            - h[i] * (1 + r) * root[i - 1] * toy(belm[i], grid.t[i], condition)
        )
        torch.testing.assert_close(belm[i - 1], expected)


def test_belm_samples_to_second_order_and_ddim_to_first():
    # One Gaussian keeps its shape along the way: (y − mean)/√(s² + σ²) is constant.
    model, steps = Mixture({"one": (0.7, -0.4)}, std=0.5), [20, 50, 100, 200]
    condition, mean = model.condition(), model.means[:, :, None, None]
    noise = torch.tensor([1.3, -0.6], dtype=torch.float64).reshape(1, 2, 1, 1)
    errors = []
    for n in steps:
        grid = model.grid(n)
        wide = (0.25 + grid.sigmas**2).sqrt()
        y = mean + (noise / grid.alphas[-1].sqrt() - mean) * wide[0] / wide[-1]
        first = grid.step(noise, model(noise, grid.t[-1], condition), n, n - 1)
        xs = torch.stack([noise] * (n - 1) + [first, noise])
        start = invert(model, noise, condition, "belm", n)
        for method in ("ddim", "belm"):
            back = reconstruct(model, replace(start, xs=xs, method=method))
            errors.append((back.x0 - y * grid.alphas[0].sqrt()).abs().max())
    ddim, belm = slope(steps, torch.stack(errors).reshape(4, 2))
    assert -1.3 < ddim < -0.7 and -2.5 < belm < -1.7


def test_methods_say_what_they_are():
    for method in METHODS.values():
        assert method.reversible in ("approximate", "exact", "exact given what is stored")
        assert "arXiv" in method.source and method.licence and method.stores


# What it costs.


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("method", METHODS)
def test_network_calls_are_the_promised_ones(tiny, latents, method, steps):
    condition = tiny.condition(PROMPT)
    known = METHODS[method]
    for w, calls in {1: 1, 3: 2}.items():
        path = invert(tiny, latents, condition.with_guidance(w), method, steps)
        rows = path.nfe, reconstruct(tiny, path).nfe
        most = known.nfe(steps, calls)
        if method in ("spdinv", "null-text"):  # They stop when they are close enough.
            assert steps <= rows[0] <= most[0] and rows[1] == most[1]
        else:
            assert rows == most


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize(
    ("method", "timestep", "rows"),
    [
        ("ddim", "next", lambda n: n),
        ("ddim", "current", lambda n: n),
        ("dual-chain", "next", lambda n: 2 * n),
        ("dual-chain", "current", lambda n: n + 1),
    ],
)
def test_network_calls_by_convention(toy, points, method, timestep, rows, steps):
    path = invert(toy, points, toy.condition(), method, steps, timestep=timestep)
    assert path.nfe == rows(steps) and toy.nfe == 2 * rows(steps)


def test_kept_noise_serves_only_what_it_was_kept_for(toy, points):
    condition = toy.condition("left")
    path = invert(toy, points, condition, steps=10)
    before = toy.nfe
    assert reconstruct(toy, path).nfe == 0
    assert reconstruct(toy, path, toy.condition("left")).nfe == 0
    assert toy.nfe == before
    other = reconstruct(toy, path, toy.condition("right"))
    assert other.nfe == 10 and other.condition.prompt == "right"
    assert path.latent_error(other)[0].min() > 1e-3


def test_kept_noise_spares_the_prompts_part_under_another_scale(toy, points):
    condition, grid = toy.condition("left"), toy.grid(10)
    path = invert(toy, points, condition, steps=10)
    for w, schedule, rows in ((3, None, 10), (0, None, 10), (3, GuidanceSchedule((500, 1000)), 5)):
        told = condition.with_guidance(w, schedule)
        back, x = reconstruct(toy, path, told), path.xT
        for i in grid.sampling_nodes():
            x = grid.step(x, toy(path.per_node["z"][i], grid.t[i], told), i, i - 1)
        torch.testing.assert_close(back.x0, x, rtol=0, atol=1e-12)
        assert back.nfe == rows
    # Nothing is known of the noise at w = 1 if the inversion was guided.
    guided = invert(toy, points, condition.with_guidance(2), steps=10, guided=True)
    assert reconstruct(toy, guided, condition).nfe == 10
    assert reconstruct(toy, guided, condition.with_guidance(3)).nfe == 20


# What comes back.


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_walks_as_each_of_its_samples_alone(tiny64, latents, method):
    condition = tiny64.condition(PROMPT, guidance_scale=2)
    together = there_and_back(tiny64, latents, condition, method)
    for row in (0, 1):
        alone = there_and_back(tiny64, latents[row : row + 1], condition, method)
        for batch, one in zip(together, alone, strict=True):
            torch.testing.assert_close(batch.xs[:, row], one.xs[:, 0], rtol=1e-9, atol=1e-9)
            # Where samples stop when they are close enough, a batch waits for the last.
            assert batch.nfe == one.nfe or method in ("spdinv", "null-text")


def test_each_sample_of_a_batch_may_have_its_own_prompt(tiny64, latents):
    prompts = [tiny64.condition("a red cube"), tiny64.condition("a blue cone")]
    both = replace(prompts[0], text=torch.cat([each.text for each in prompts]))
    for method in METHODS:
        path, back = there_and_back(tiny64, latents, both, method)
        for row, condition in enumerate(prompts):
            alone = there_and_back(tiny64, latents[row : row + 1], condition, method)
            torch.testing.assert_close(path.xs[:, row], alone[0].xs[:, 0])
            torch.testing.assert_close(back.xs[:, row], alone[1].xs[:, 0])


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_path_walks_back_as_the_one_in_memory(tiny, latents, method, tmp_path):
    path, back = there_and_back(tiny, latents, tiny.condition(PROMPT), method)
    loaded = Trajectory.load(path.save(tmp_path / "path.safetensors"))
    again = reconstruct(tiny, loaded)
    assert torch.equal(again.xs, back.xs) and again.nfe == back.nfe


@pytest.mark.parametrize("method", METHODS)
def test_records_name_what_made_them(tiny, latents, method):
    path, back = there_and_back(tiny, latents, tiny.condition(PROMPT), method, 3)
    for walk in (path, back):
        assert (walk.method, walk.model, walk.condition.prompt) == (method, tiny.name, PROMPT)
        assert walk.xs.shape == (4, 2, 4, 8, 8) and walk.xs.dtype == torch.float64
    assert torch.equal(path.x0, latents) and torch.equal(back.xT, path.xT)
    assert not path.xs.requires_grad


@pytest.mark.parametrize("method", ["ddim", "dual-chain"])
def test_noise_read_off_a_walk_is_the_noise_it_moved_along(toy, points, method):
    path, back = there_and_back(toy, points, toy.condition("left"), method, 20)
    where = path.per_node["z"] if method == "dual-chain" else back.xs
    asked = [toy(where[i], path.grid.t[i], path.condition) for i in range(1, 21)]
    walk = path if method == "dual-chain" else back
    torch.testing.assert_close(walk.eps, torch.stack(asked), rtol=1e-7, atol=1e-7)


# What is refused.


def test_unknown_methods_are_refused(toy, points):
    with pytest.raises(ValueError, match="unknown method 'exact': expected one of ddim, fixed"):
        invert(toy, points, toy.condition(), "exact")
    path = replace(invert(toy, points, toy.condition(), steps=2), method="exact")
    with pytest.raises(ValueError, match="unknown method 'exact'"):
        reconstruct(toy, path)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_options_are_refused(toy, points, method):
    with pytest.raises(TypeError, match="eta"):
        invert(toy, points, toy.condition(), method, steps=2, eta=1.0)


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("ddim", {"timestep": "both"}, "unknown timestep 'both': expected one of next, current"),
        (
            "dual-chain",
            {"timestep": "both"},
            "unknown timestep 'both': expected one of next, current",
        ),
        ("aidi", {"mixing": "best"}, "unknown mixing 'best': expected one of anderson, average"),
        ("aidi", {"rounds": 0}, "at least one round, got 0"),
        ("fixed-point", {"rounds": 0}, "at least one round, got 0"),
        ("renoise", {"average": 0}, "at least one round, got 0"),
        ("edict", {"p": 0}, "p in .0, 1., got 0"),
        ("bdia", {"gamma": 2}, "gamma in .0, 1., got 2"),
    ],
)
def test_impossible_options_are_refused(toy, points, method, option, message):
    with pytest.raises(ValueError, match=message):
        invert(toy, points, toy.condition(), method, steps=2, **option)


@pytest.mark.parametrize(
    "x",
    [
        torch.full((1, 2, 1, 1), math.nan),
        torch.full((1, 2, 1, 1), math.inf),
        torch.zeros(2, 1, 1),
        torch.zeros(1, 2, 1, 1, dtype=torch.long),
    ],
    ids=["not a number", "infinite", "no batch", "whole numbers"],
)
def test_other_things_than_latents_are_refused(toy, x):
    with pytest.raises(ValueError, match="finite floating-point latents"):
        invert(toy, x, toy.condition())
    assert toy.nfe == 0


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(toy, points, steps):
    with pytest.raises(ValueError, match="between 1 and 1000 steps"):
        invert(toy, points, toy.condition(), steps=steps)


def test_a_path_of_another_model_is_refused(toy, tiny, points):
    path = invert(toy, points, toy.condition(), steps=2)
    with pytest.raises(
        ValueError,
        match="expected a trajectory of .*tiny@.*got one of mixture .*another kind of model",
    ):
        reconstruct(tiny, path)


def test_the_package_exports_what_its_first_example_uses():
    used = {"load", "examples", "invert", "reconstruct"}
    assert used <= set(erddci.__all__) and all(hasattr(erddci, n) for n in erddci.__all__)
