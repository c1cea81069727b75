"""Identities of every method over random schedules, steps, guidance, batches and options."""

import warnings
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erddci import METHODS, invert, reconstruct
from erddci.controls import AttentionStore
from erddci.editing import edit
from erddci.grid import Grid, to_epsilon
from erddci.guidance import GuidanceSchedule
from erddci.notices import NoEffect, NotFinite
from erddci.toy import Mixture

settings.register_profile(
    "ci",
    max_examples=150,
    deadline=None,
    derandomize=True,  # the same examples on every machine
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("slow", settings.get_profile("ci"), max_examples=2500)
settings.load_profile("ci")

EXACT = [name for name, method in METHODS.items() if method.reversible != "approximate"]
MEANS = {"left": (-1.0, -0.2, 0.3), "right": (0.9, 0.1, -0.4), "top": (0.1, 1.2, 0.0)}

schedulers = st.fixed_dictionaries(
    {
        "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
        "timestep_spacing": st.sampled_from(["leading", "trailing", "linspace"]),
        "steps_offset": st.sampled_from([0, 1]),
        "set_alpha_to_one": st.booleans(),
        "num_train_timesteps": st.sampled_from([100, 1000]),
        "beta_start": st.just(0.00085),
        "beta_end": st.just(0.012),
    }
)
schedules = st.none() | st.builds(
    GuidanceSchedule,
    interval=st.tuples(st.floats(0, 1000), st.floats(0, 1000)).map(sorted).map(tuple),
    power=st.sampled_from([0.0, 1.0, 4.0]),
    guide_inversion=st.booleans(),
    clip=st.sampled_from([float("inf"), 0.3]),
)
guidance = st.sampled_from([1.0, 0.0, 3.0, 7.5]) | st.floats(-2, 15)
steps = st.sampled_from([1, 2, 3, 100]) | st.integers(1, 40)


class Case:
    """A toy, points of it, and a condition, drawn together."""

    def __init__(self, data):
        dimensions = data.draw(st.integers(1, 3), "dimensions")
        means = {name: mean[:dimensions] for name, mean in MEANS.items()}
        self.toy = Mixture(means, std=data.draw(st.floats(0.1, 1), "std"))
        self.toy.scheduler = DDIMScheduler(**data.draw(schedulers, "scheduler"))
        self.samples = data.draw(st.integers(1, 4), "samples")
        seed = data.draw(st.integers(0, 1000), "seed")
        self.points = self.toy.sample(self.samples, "", torch.Generator().manual_seed(seed))
        prompt = data.draw(st.sampled_from(["left", "left right", ""]), "prompt")
        self.condition = self.toy.condition(prompt).with_guidance(
            data.draw(guidance, "w"), data.draw(schedules, "schedule")
        )
        self.steps = data.draw(steps, "steps")

    def invert(self, method, points=None, guided=None):
        options = {"rounds": 2} if METHODS[method].expensive else {}
        return invert(
            self.toy,
            self.points if points is None else points,
            self.condition,
            method,
            self.steps,
            guided=guided,
            **options,
        )


def rounding(path):
    """What rounding leaves of an exact method: steps from ᾱ_N near 0 amplify it by up to 1/ᾱ_N."""
    return max(1e-10, 1e-14 / path.grid.alphas[-1].item())


def scale(*tensors):
    return max(1.0, *(tensor.abs().max().item() for tensor in tensors))


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffect)
        yield


@given(data=st.data(), method=st.sampled_from(EXACT))
def test_exact_methods_come_back(data, method):
    case = Case(data)
    guided = True if METHODS[method].both_common else None
    path = case.invert(method, guided=guided)
    back = reconstruct(case.toy, path)
    largest = scale(path.xs, *path.per_node.values())
    # Undoing EDICT's mixing divides by 0.93 twice a step.
    growth = 0.93 ** (-2 * case.steps) if method == "edict" else 1
    assert path.latent_error(back).max() <= rounding(path) * largest * growth


@given(data=st.data(), method=st.sampled_from(list(METHODS)))
def test_nothing_is_silently_infinite(data, method):
    case = Case(data)
    try:
        path = case.invert(method)
        back = reconstruct(case.toy, path)
        edited = edit(case.toy, path, replace(case.condition, text=-case.condition.text.clamp(-9)))
    except NotFinite:
        return
    for xs in (path.xs, back.xs, edited.target.xs):
        assert xs.isfinite().all()
    assert path.nfe > 0 and len(back.xs) == path.grid.num_steps + 1


@given(data=st.data(), method=st.sampled_from(list(METHODS)))
def test_a_sample_of_a_batch_is_as_alone(data, method):
    case = Case(data)
    try:
        together = case.invert(method)
        row = data.draw(st.integers(0, case.samples - 1), "row")
        alone = case.invert(method, case.points[row : row + 1])
    except NotFinite:
        return
    error = (together.xs[:, row] - alone.xs[:, 0]).abs().max()
    # Anderson mixing solves small systems that may be nearly singular.
    bound = 1e-6 if method == "aidi" else 1e-10
    assert error <= bound * scale(alone.xs)


@given(data=st.data(), method=st.sampled_from(EXACT))
def test_parts_come_back_too(data, method):
    case = Case(data)
    guided = True if METHODS[method].both_common else None
    path = case.invert(method, guided=guided)
    part = path.truncate(data.draw(st.integers(1, path.grid.num_steps), "node"))
    back = reconstruct(case.toy, part)
    growth = 0.93 ** (-2 * case.steps) if method == "edict" else 1
    assert (
        part.latent_error(back).max()
        <= rounding(path) * scale(path.xs, *path.per_node.values()) * growth
    )


@given(data=st.data(), method=st.sampled_from(EXACT))
def test_saving_keeps_what_comes_back(data, method, tmp_path_factory):
    case = Case(data)
    path = case.invert(method)
    file = path.save(tmp_path_factory.mktemp("paths") / "path.safetensors")
    again = reconstruct(case.toy, type(path).load(file))
    assert torch.equal(again.xs, reconstruct(case.toy, path).xs)


@given(data=st.data())
def test_an_edit_to_the_same_prompt_returns_the_image(data):
    case = Case(data)
    path = case.invert("dual-chain", guided=True)
    edited = edit(case.toy, path, case.condition)
    # The target's noise is predicted anew, so rounding feeds back through the network.
    assert path.latent_error(edited.target).max() <= 1e-7 * scale(path.xs, path.per_node["z"])


@given(data=st.data(), kind=st.sampled_from(["epsilon", "v_prediction", "sample"]))
def test_prediction_types_say_the_same(data, kind):
    grid = Grid.from_scheduler(data.draw(schedulers), data.draw(steps))
    a = grid.alphas[data.draw(st.integers(1, grid.num_steps))]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    x0, eps = torch.randn(2, 1, 4, 8, 8, generator=generator, dtype=torch.float64)
    x = a.sqrt() * x0 + (1 - a).sqrt() * eps
    v = a.sqrt() * eps - (1 - a).sqrt() * x0
    output = {"epsilon": eps, "v_prediction": v, "sample": x0}[kind]
    # Near the image ε is divided by √(1 − ᾱ).
    bound = 1e-12 / (1 - a).sqrt().item()
    torch.testing.assert_close(to_epsilon(output, x, a, kind), eps, rtol=0, atol=bound)


@given(data=st.data(), control=st.sampled_from([None, AttentionStore()]))
def test_a_model_without_attention_refuses_control(data, control):
    case = Case(data)
    path = case.invert("ddim")
    if control is None:
        assert edit(case.toy, path, case.condition).target.xs.isfinite().all()
    else:
        with pytest.raises(ValueError, match="expected a model with attention"):
            edit(case.toy, path, case.condition, control)
