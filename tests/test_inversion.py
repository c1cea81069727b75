"""Every inversion method: against diffusers, against formulas, and by what each promises."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

import erddci
from erddci import METHODS, Trajectory, invert, reconstruct

ASKS = ("target", "source")
PROMPT = "a small red matte cube on a teal floor"
EXACT = [name for name, method in METHODS.items() if method.reversible != "approximate"]


def there_and_back(model, x, condition, method="dual-chain", steps=10, **options):
    path = invert(model, x, condition, method, steps, **options)
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


@pytest.mark.parametrize("asks", ASKS)
@pytest.mark.parametrize("w", [1, 3])
def test_dual_chain_by_its_definition(toy, points, asks, w):
    # In y = x/√ᾱ a step is y ← y + Δσ·ε: the original chain z moves along the noise where it
    # stands, the auxiliary chain along the noise where the original arrives.
    condition, grid = toy.condition("left", w), toy.grid(20)
    path = invert(toy, points, condition, "dual-chain", 20, asks=asks)
    scale = grid.alphas.sqrt()
    z = x = points / scale[0]
    for i in range(1, 21):
        change = grid.sigmas[i] - grid.sigmas[i - 1]
        told = grid.t[i] if asks == "target" else grid.t[i - 1]
        z = z + change * toy(z * scale[i - 1], told, condition)
        eps = toy(z * scale[i], grid.t[i], condition)
        x = x + change * eps
        torch.testing.assert_close(path.kept["z"][i], z * scale[i])
        torch.testing.assert_close(path.kept["eps"][i - 1], eps)
        torch.testing.assert_close(path.xs[i], x * scale[i])


@pytest.mark.parametrize("asks", ASKS)
def test_original_chain_is_ddim_inversion(toy, points, asks):
    condition = toy.condition("right")
    dual = invert(toy, points, condition, "dual-chain", 20, asks=asks)
    plain = invert(toy, points, condition, "ddim", 20, asks=asks)
    torch.testing.assert_close(dual.kept["z"], plain.xs)
    assert (dual.noise - plain.noise).abs().max() > 1e-3


# What is exact, and what is not.


@pytest.mark.parametrize("w", [1, 0, 7.5, -2])
@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("asks", ASKS)
@pytest.mark.parametrize("method", EXACT)
def test_exact_methods_return_to_the_point(toy, points, method, asks, steps, w):
    path, back = there_and_back(toy, points, toy.condition("left", w), method, steps, asks=asks)
    assert torch.equal(path.image, points)
    # The chain leaves the unit scale under strong guidance, and float64 is exact up to scale.
    assert path.drift(back).max() < 1e-10 * max(1, path.xs.abs().max())


@pytest.mark.parametrize("prompt", [PROMPT, ""])
@pytest.mark.parametrize("asks", ASKS)
@pytest.mark.parametrize("method", EXACT)
def test_exact_methods_return_to_the_latent(tiny64, latents, method, asks, prompt):
    condition = tiny64.condition(prompt)
    path, back = there_and_back(tiny64, latents, condition, method, asks=asks)
    assert path.drift(back).max() < 1e-10


@pytest.mark.parametrize(("network", "limit"), [("tiny", 1e-4), ("tiny64", 1e-10)])
def test_asking_the_network_again_is_exact_too(network, limit, latents, request):
    model = request.getfixturevalue(network)
    path = invert(model, latents, model.condition(PROMPT), steps=10)
    # One prompt for each sample counts as another condition, so the kept noise is not used.
    each = replace(path.condition, text=path.condition.text.repeat(2, 1, 1))
    back = reconstruct(model, path, each)
    assert back.rows == 10
    assert path.drift(back).max() < limit


def test_ddim_does_not_return_and_its_error_accumulates(tiny64, latents):
    path, back = there_and_back(tiny64, latents, tiny64.condition(PROMPT), "ddim")
    drift = path.drift(back)
    assert (drift[-1] == 0).all() and (drift[0] > 1e-2).all()
    assert (drift[0] > drift[5]).all()


@pytest.mark.parametrize("asks", ASKS)
def test_error_of_ddim_is_of_first_order_and_that_of_dual_chain_is_none(toy, points, asks):
    steps = [50, 100, 200, 500]

    def errors(method):
        walks = [
            there_and_back(toy, points, toy.condition("left"), method, count, asks=asks)
            for count in steps
        ]
        return torch.stack([path.drift(back)[0] for path, back in walks])

    times = torch.tensor(steps).double().log()
    logs = errors("ddim").log()
    slopes = torch.linalg.lstsq(torch.stack([times, torch.ones(4).double()], 1), logs).solution[0]
    assert (slopes < -0.85).all() and (slopes > -1.15).all()
    assert errors("dual-chain").max() < 1e-11


@pytest.mark.parametrize("asks", ASKS)
@pytest.mark.parametrize("w", [0, 3, 7.5])
def test_error_under_guidance_is_the_sum_of_guided_differences(toy, points, asks, w):
    # y'_0 − y_0 = −(w − 1)·Σ Δσ_i (ε_c − ε_u)(z_i), all of it known after inversion.
    condition = toy.condition("left")
    path = invert(toy, points, condition, "dual-chain", 20, asks=asks)
    back = reconstruct(toy, path, condition.at(w))
    grid, expected = path.grid, torch.zeros_like(points)
    for i in range(1, 21):
        z = path.kept["z"][i]
        guided = toy(z, grid.t[i], condition) - toy(z, grid.t[i], condition.at(0))
        expected -= (w - 1) * (grid.sigmas[i] - grid.sigmas[i - 1]) * guided
    error = (back.image - path.image) / grid.alphas[0].sqrt()
    torch.testing.assert_close(error, expected, rtol=1e-9, atol=1e-9)
    assert error.abs().max() > 0.1


# What it costs.


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("method", METHODS)
def test_network_calls_are_the_promised_ones(tiny, latents, method, steps):
    condition = tiny.condition(PROMPT)
    path, back = there_and_back(tiny, latents, condition, method, steps)
    assert (path.rows, back.rows) == METHODS[method].calls(steps)
    guided, again = there_and_back(tiny, latents, condition.at(3), method, steps)
    assert (guided.rows, again.rows) == (2 * path.rows, 2 * back.rows)


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize(
    ("method", "asks", "rows"),
    [
        ("ddim", "target", lambda n: n),
        ("ddim", "source", lambda n: n),
        ("dual-chain", "target", lambda n: 2 * n),
        ("dual-chain", "source", lambda n: n + 1),
    ],
)
def test_network_calls_by_convention(toy, points, method, asks, rows, steps):
    path = invert(toy, points, toy.condition(), method, steps, asks=asks)
    assert path.rows == rows(steps) and toy.rows == 2 * rows(steps)


def test_kept_noise_serves_only_what_it_was_kept_for(toy, points):
    condition = toy.condition("left")
    path = invert(toy, points, condition, steps=10)
    before = toy.rows
    assert reconstruct(toy, path).rows == 0
    assert reconstruct(toy, path, toy.condition("left")).rows == 0
    assert toy.rows == before
    other = reconstruct(toy, path, toy.condition("right"))
    assert other.rows == 10 and other.condition.prompt == "right"
    assert reconstruct(toy, path, condition.at(3)).rows == 20
    assert path.drift(other)[0].min() > 1e-3


# What comes back.


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_walks_as_each_of_its_samples_alone(tiny64, latents, method):
    condition = tiny64.condition(PROMPT, guidance_scale=2)
    together = there_and_back(tiny64, latents, condition, method)
    for row in (0, 1):
        alone = there_and_back(tiny64, latents[row : row + 1], condition, method)
        for batch, one in zip(together, alone, strict=True):
            torch.testing.assert_close(batch.xs[:, row], one.xs[:, 0], rtol=1e-9, atol=1e-9)
            assert batch.rows == one.rows


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
    assert torch.equal(again.xs, back.xs) and again.rows == back.rows


@pytest.mark.parametrize("method", METHODS)
def test_records_name_what_made_them(tiny, latents, method):
    path, back = there_and_back(tiny, latents, tiny.condition(PROMPT), method, 3)
    for walk in (path, back):
        assert (walk.method, walk.model, walk.condition.prompt) == (method, tiny.name, PROMPT)
        assert walk.xs.shape == (4, 2, 4, 8, 8) and walk.xs.dtype == torch.float64
    assert torch.equal(path.image, latents) and torch.equal(back.noise, path.noise)
    assert not path.xs.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_noise_read_off_a_walk_is_the_noise_it_moved_along(toy, points, method):
    path, back = there_and_back(toy, points, toy.condition("left"), method, 20)
    where = path.kept["z"] if method == "dual-chain" else back.xs
    asked = [toy(where[i], path.grid.t[i], path.condition) for i in range(1, 21)]
    walk = path if method == "dual-chain" else back
    torch.testing.assert_close(walk.eps, torch.stack(asked), rtol=1e-7, atol=1e-7)


# What is refused.


def test_unknown_methods_are_refused(toy, points):
    with pytest.raises(ValueError, match="unknown method 'edict': expected one of ddim, dual"):
        invert(toy, points, toy.condition(), "edict")
    path = replace(invert(toy, points, toy.condition(), steps=2), method="edict")
    with pytest.raises(ValueError, match="unknown method 'edict'"):
        reconstruct(toy, path)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_options_are_refused(toy, points, method):
    with pytest.raises(TypeError, match="eta"):
        invert(toy, points, toy.condition(), method, steps=2, eta=1.0)
    with pytest.raises(ValueError, match="'target' or 'source', got 'both'"):
        invert(toy, points, toy.condition(), method, steps=2, asks="both")


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
    assert toy.rows == 0


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(toy, points, steps):
    with pytest.raises(ValueError, match="between 1 and 1000 steps"):
        invert(toy, points, toy.condition(), steps=steps)


def test_a_path_of_another_model_is_refused(toy, tiny, points):
    path = invert(toy, points, toy.condition(), steps=2)
    with pytest.raises(ValueError, match="expected a path of .*tiny@.*got one of mixture"):
        reconstruct(tiny, path)


def test_the_package_exports_what_its_first_example_uses():
    used = {"load", "examples", "invert", "reconstruct"}
    assert used <= set(erddci.__all__) and all(hasattr(erddci, n) for n in erddci.__all__)
