"""What was asked for and had no effect is said; numbers that cannot be are refused."""

import warnings

import pytest
import torch

from erddci import METHODS, invert, reconstruct
from erddci.controls import LocalBlend, MasaCtrl
from erddci.editing import EditConfig, edit
from erddci.guidance import DEFAULT_SCHEDULE, GuidanceSchedule
from erddci.notices import NoEffect, NotFinite

SOURCE = "a small red matte cube on a teal floor"
TARGET = "a small blue matte cube on a teal floor"


@pytest.fixture
def path(tiny, latents):
    return invert(tiny, latents, tiny.condition(SOURCE), steps=5)


def test_guidance_that_acts_at_no_step_is_said(tiny, latents, path):
    nowhere = GuidanceSchedule(interval=(990, 1000))
    target = tiny.condition(TARGET).with_guidance(7.5, nowhere)
    with pytest.warns(NoEffect, match=r"w = 7.5 acts at no step: .* 1…801 of 5 steps .* 990…1000"):
        edit(tiny, path, target)
    with pytest.warns(NoEffect, match="acts at no step"):
        reconstruct(tiny, path, target)


@pytest.mark.parametrize("steps", [1, 2, 501])
def test_few_timesteps_for_the_default_schedule_are_said(toy, points, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = invert(toy, points, toy.condition("left"), "ddim", steps)
    with pytest.warns(NoEffect, match="acts at no step"):
        edit(toy, path, toy.condition("right").with_guidance(7.5, DEFAULT_SCHEDULE))


def test_an_end_far_from_noise_is_said(toy, points):
    with pytest.warns(NoEffect, match="2 steps end at t = 501, where ᾱ = 0.2"):
        invert(toy, points, toy.condition("left"), "ddim", 2)


def test_a_control_that_changes_nothing_is_said(tiny, path):
    with pytest.warns(NoEffect, match="MasaCtrl changed no attention: raise"):
        edit(tiny, path, tiny.condition(TARGET), MasaCtrl(start=2.0))


PEAK = 0.999  # the maps of an untrained network are nearly flat


def blend_of(tiny, **options):
    return LocalBlend.from_prompts(tiny.tokenizer, [SOURCE], [TARGET], **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 1.5}, r"LocalBlend\(start=1.5\) blends at no step: lower start"),
        ({"threshold": -1.0}, "the whole image of 2 of 2 samples at every .*: raise threshold"),
        ({"threshold": 1.0}, "frees nothing of 2 of 2 samples at any step, .*: lower threshold"),
    ],
)
@pytest.mark.parametrize("method", ["ddim", "dual-chain"])
def test_a_blend_that_changes_nothing_or_all_is_said(tiny, latents, method, options, words):
    path = invert(tiny, latents, tiny.condition(SOURCE), method, 5)
    target = tiny.condition(TARGET)
    free = edit(tiny, path, target).x0
    with pytest.warns(NoEffect, match=words) as said:
        found = edit(tiny, path, target, blend=blend_of(tiny, **options)).x0
    assert len(said) == 1
    expected = latents if "frees nothing" in words else free
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_samples_whose_blend_changes_nothing_are_counted(tiny, path):
    blend = blend_of(tiny, threshold=PEAK)
    source, target = (each.repeat(2, 1) for each in (blend.source, blend.target))
    source[1] = target[1] = 0  # no word to look for
    blend = LocalBlend(source, target, PEAK)
    with pytest.warns(NoEffect, match="frees nothing of 1 of 2 samples"):
        edit(tiny, path, tiny.condition(TARGET), blend=blend)


@pytest.mark.parametrize("start", [0.0, 0.7])
def test_a_blend_that_blends_is_not_said(tiny, path, start):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = edit(
            tiny, path, tiny.condition(TARGET), blend=blend_of(tiny, threshold=PEAK, start=start)
        )
    assert len(found.attention.masks) == (5 if start == 0 else 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cross_until": 0.7}, "cross_until=0.7 has no effect with control='none'"),
        ({"control": "masactrl", "self_until": 0.7}, "self_until=0.7 .* with control='masactrl'"),
        ({"threshold": 0.5}, "threshold=0.5 has no effect with blend=False"),
        ({"method": "sdedit", "timestep": "current"}, "timestep='current' .* method='sdedit'"),
        ({"strength": 0.95}, "strength=0.95 of 5 steps is all of them, as strength=1"),
        ({"strength": 0.05}, "strength=0.05 of 5 steps is less than one: one is sampled"),
    ],
)
def test_options_that_nothing_reads_are_said(tiny, latents, options, words):
    config = EditConfig(**{"method": "ddim", "steps": 5, "guidance_scale": 1.0} | options)
    path = config.invert(tiny, latents, [SOURCE] * 2)
    with pytest.warns(NoEffect, match=words) as said:
        config.edit(tiny, path, [SOURCE] * 2, [TARGET] * 2)
    assert len(said) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"control": "refine", "cross_until": 0.7, "self_until": 0.7},
        {"control": "plug-and-play", "cross_until": 0.7, "self_until": 0.7},
        {"control": "none", "cross_until": 0, "self_until": 0},  # nothing is what was asked for
        {"blend": True, "threshold": PEAK},
        {"strength": 0.6},
        {"strength": 0.2},
    ],
)
def test_options_that_are_read_are_not_said(tiny, latents, options):
    config = EditConfig(**{"method": "ddim", "steps": 5, "guidance_scale": 1.0} | options)
    path = config.invert(tiny, latents, [SOURCE] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.edit(tiny, path, [SOURCE] * 2, [TARGET] * 2)


def test_a_negative_prompt_without_guidance_is_said(tiny, path):
    target = tiny.condition(TARGET, negative_prompt="a red cube on a teal floor")
    with pytest.warns(NoEffect, match="negative prompt “a red cube on a teal floor” .* w = 1"):
        edit(tiny, path, target)


def test_where_to_evaluate_matters_to_the_dual_chain_alone(tiny, latents):
    path = invert(tiny, latents, tiny.condition(SOURCE), "ddim", 5)
    with pytest.warns(NoEffect, match="evaluate_at='target' has no effect on DDIM"):
        edit(tiny, path, tiny.condition(TARGET), evaluate_at="target")


def test_what_has_an_effect_is_not_said(tiny, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit(tiny, path, tiny.condition(TARGET).with_guidance(7.5, DEFAULT_SCHEDULE))


def test_a_notice_names_the_line_that_called(toy, points):
    with pytest.warns(NoEffect) as said:
        invert(toy, points, toy.condition("left"), "ddim", 1)
    assert said[0].filename == __file__


@pytest.mark.parametrize("method", METHODS)
def test_numbers_beyond_all_bounds_are_refused_with_their_node(toy, points, method):
    class Broken(type(toy)):
        def _predict(self, x, t, text):
            eps = super()._predict(x, t, text)
            return torch.where(t[:, None, None, None] > 300, torch.nan, eps)

    broken = Broken({"left": (-1.0, -0.2), "right": (0.9, 0.1)})
    with pytest.raises(NotFinite, match="expected finite numbers, got NaN"):
        invert(broken, points, broken.condition("left", 3), method, 5)


def test_a_reconstruction_beyond_all_bounds_is_refused(tiny, path):
    with pytest.raises(
        NotFinite, match=r"reconstruction by dual chain at node 4 of 5 \(t = 601\)"
    ):
        reconstruct(tiny, path, tiny.condition(TARGET, guidance_scale=float("inf")))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_overflow_in_the_vae_is_refused(tiny_folder, part):
    import erddci

    model = erddci.load(tiny_folder, device="cpu", dtype=torch.float16)
    with torch.no_grad():
        getattr(model.vae, part).conv_in.weight.mul_(1e7)
    with pytest.raises(NotFinite, match=f"from the VAE's {part}: float16 ends at 65504; load"):
        model.decode(model.encode(erddci.examples()[0].image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_null_embeddings_are_optimised_whatever_the_networks_dtype(tiny_folder, latents, dtype):
    import erddci

    model = erddci.load(tiny_folder, device="cpu", dtype=dtype)
    condition = model.condition(SOURCE, guidance_scale=7.5)
    with torch.no_grad():  # an untrained network has hardly any guidance to undo
        model.unet.conv_out.weight.mul_(20)
    ddim = invert(model, latents, condition, "ddim", 5)
    path = invert(model, latents, condition, "null-text", 5, tolerance=0.0)
    nulls = path.per_step["null"]
    assert nulls.dtype == torch.float32 and nulls.isfinite().all()
    errors = [
        (reconstruct(model, each).x0 - latents).square().mean().item() for each in (ddim, path)
    ]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("method", METHODS)
def test_methods_work_in_inference_mode(tiny, latents, method):
    condition = tiny.condition(SOURCE, guidance_scale=3)
    expected = reconstruct(tiny, invert(tiny, latents, condition, method, 3))
    with torch.inference_mode():
        condition = tiny.condition(SOURCE, guidance_scale=3)
        path = invert(tiny, latents.clone(), condition, method, 3)
        back = reconstruct(tiny, path)
    torch.testing.assert_close(back.xs, expected.xs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 501, 999, 1000])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "spdinv"])
def test_any_number_of_steps_is_finite_and_exact_methods_stay_so(toy, points, method, steps):
    condition = toy.condition("left", 2)
    options = {"rounds": 1} if METHODS[method].expensive else {}
    guided = True if METHODS[method].both_common else None
    path = invert(toy, points[:1], condition, method, steps, guided=guided, **options)
    back = reconstruct(toy, path)
    assert back.xs.isfinite().all()
    # EDICT divides by p twice a step, so rounding grows with steps.
    if METHODS[method].reversible != "approximate" and (method != "edict" or steps < 10):
        assert path.latent_error(back).max() < 1e-8 * max(1, path.xs.abs().max())
