"""The record of a walk keeps everything it is given."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from erddci import METHODS, invert, reconstruct
from erddci.grid import Grid
from erddci.guidance import DEFAULT_SCHEDULE, Condition, GuidanceSchedule
from erddci.trajectory import Trajectory

EXACT = [name for name, method in METHODS.items() if method.reversible != "approximate"]


@pytest.fixture
def walk():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=dtype)

    grid = Grid(torch.tensor([0, 1, 500]), torch.tensor([0.99, 0.9, 0.2], dtype=torch.float64))
    condition = Condition(
        normal(2, 5, 3, dtype=torch.float32), normal(1, 5, 3, dtype=torch.float32), 2.5, "größer"
    )
    return Trajectory(
        grid,
        normal(3, 2, 4, 3, 3),
        condition,
        guided=False,
        per_node={"z": normal(3, 2, 4, 3, 3)},
        per_step={"eps": normal(2, 2, 4, 3, 3)},
        constants={"p": normal(1)},
        method="some",
        model="model@1",
        nfe=1.5,
    )


def test_image_and_noise_are_the_ends(walk):
    assert torch.equal(walk.x0, walk.xs[0]) and torch.equal(walk.xT, walk.xs[2])


def test_everything_survives_a_file(walk, tmp_path):
    path = tmp_path / "new" / "walk.safetensors"
    assert walk.save(str(path)) == path
    back = Trajectory.load(path)
    assert torch.equal(back.xs, walk.xs) and back.xs.dtype == torch.float64
    assert torch.equal(back.grid.t, walk.grid.t) and back.grid.t.dtype == torch.long
    assert torch.equal(back.grid.alphas, walk.grid.alphas)
    assert torch.equal(back.condition.text, walk.condition.text)
    assert torch.equal(back.condition.null, walk.condition.null)
    assert (back.condition.guidance_scale, back.condition.prompt) == (2.5, "größer")
    assert back.condition.equivalent(walk.condition)
    assert back.condition.schedule is None
    for kind, names in {"per_node": {"z"}, "per_step": {"eps"}, "constants": {"p"}}.items():
        stored, expected = getattr(back, kind), getattr(walk, kind)
        assert set(stored) == names
        assert all(torch.equal(stored[name], expected[name]) for name in names)
    assert (back.method, back.model, back.nfe, back.guided) == ("some", "model@1", 1.5, False)


def test_a_prompt_that_is_its_own_negative_can_be_saved(walk, tmp_path):
    text = walk.condition.text
    shared = Trajectory(walk.grid, walk.xs, Condition(text, text))
    back = Trajectory.load(shared.save(tmp_path / "walk.safetensors"))
    assert torch.equal(back.condition.text, text) and torch.equal(back.condition.null, text)


def test_a_part_of_a_walk_can_be_saved(walk, tmp_path):
    part = Trajectory(walk.grid, walk.xs[:, :1], walk.condition)
    back = Trajectory.load(part.save(tmp_path / "walk.safetensors"))
    assert torch.equal(back.xs, walk.xs[:, :1]) and back.per_node == back.per_step == {}


def test_drift_by_hand(walk):
    xs = walk.xs.clone()
    xs[0, 1, 2, 0, 1] += 0.25
    xs[0, 1, 0, 0, 0] += 0.125
    xs[2, 0, 3, 2, 2] -= 4
    other = Trajectory(walk.grid, xs, walk.condition)
    expected = torch.tensor([[0, 0.25], [0, 0], [4, 0]], dtype=torch.float64)
    torch.testing.assert_close(walk.latent_error(other), expected)
    torch.testing.assert_close(other.latent_error(walk), expected)
    assert walk.latent_error(walk).max() == 0


def test_drift_of_walks_of_other_shapes_is_refused(walk):
    shorter = Trajectory(walk.grid, walk.xs[:2], walk.condition)
    with pytest.raises(ValueError, match=r"one shape, got \(3, 2, .*\) and \(2, 2, .*\)"):
        walk.latent_error(shorter)


def test_noise_and_clean_estimate_by_hand():
    # ᾱ = 0.8, 0.5, 0.2 gives σ = 0.5, 1, 2 and y = x/√ᾱ = 1, 2, −1.
    alphas = torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64)
    y = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    xs = (y * alphas.sqrt()).reshape(3, 1, 1, 1, 1)
    condition = Condition(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    walk = Trajectory(Grid(torch.tensor([0, 1, 2]), alphas), xs, condition)
    # ε = Δy/Δσ = 1/0.5 and −3/1; the image aimed at is y − σε = 2 − 2 and −1 + 6.
    torch.testing.assert_close(walk.eps.flatten(), torch.tensor([2.0, -3.0]).double())
    torch.testing.assert_close(walk.pred_x0.flatten(), torch.tensor([0.0, 5.0]).double())


def test_no_noise_moves_between_equal_levels(walk):
    grid = Grid(torch.tensor([0, 0, 500]), torch.tensor([0.9, 0.9, 0.2], dtype=torch.float64))
    xs = torch.cat([walk.xs[:1], walk.xs[:1], walk.xs[2:]])
    eps = Trajectory(grid, xs, walk.condition).eps
    assert (eps[0] == 0).all() and eps.isfinite().all()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trajectory at .*gone.safetensors"):
        Trajectory.load(tmp_path / "gone.safetensors")


def test_files_of_other_things_are_refused(walk, tmp_path):
    text, tensors, cut = (tmp_path / name for name in ("text", "tensors", "cut"))
    text.write_text("not tensors")
    save_file({"xs": walk.xs}, tensors)
    cut.write_bytes(walk.save(tmp_path / "whole").read_bytes()[:300])
    for path in (text, tensors, cut):
        with pytest.raises(ValueError, match=f"{path.name} holds no trajectory"):
            Trajectory.load(path)


# GuidanceSchedule control in a file.


@pytest.mark.parametrize(
    "schedule",
    [
        DEFAULT_SCHEDULE,
        GuidanceSchedule(guide_inversion=True, clip=0.3),
        GuidanceSchedule((100, 600.5), power=1, guide_inversion=True, clip=math.inf),
    ],
)
def test_dynamic_control_survives_a_file(toy, points, tmp_path, schedule):
    condition = toy.condition("left").with_guidance(7.5, schedule)
    path = invert(toy, points, condition, steps=6)
    back = Trajectory.load(path.save(tmp_path / "walk.safetensors"))
    assert back.condition.schedule == schedule and isinstance(
        back.condition.schedule.interval, tuple
    )
    assert back.condition.equivalent(condition)
    again = reconstruct(toy, back)
    # The kept noise is that of the condition, so nothing is asked for anew.
    assert again.nfe == 0 and path.latent_error(again).max() < 1e-10


# Parts of a walk.


@pytest.mark.parametrize("node", [1, 2, 7, 8])
@pytest.mark.parametrize("w", [1, 7.5])
@pytest.mark.parametrize("method", EXACT)
def test_a_part_of_a_walk_walks_back(toy, points, method, w, node):
    path = invert(
        toy,
        points,
        toy.condition("left", w),
        method,
        steps=8,
        guided=True,
    )
    part = path.truncate(node)
    assert part.grid.num_steps == node and torch.equal(part.xs, path.xs[: node + 1])
    assert torch.equal(part.grid.t, path.grid.t[: node + 1])
    assert torch.equal(part.grid.alphas, path.grid.alphas[: node + 1])
    back = reconstruct(toy, part)
    assert part.latent_error(back).max() < 1e-10 * max(1, part.xs.abs().max())
    assert (back.x0 - points).abs().max() < 1e-10 * max(1, part.xs.abs().max())


STORED = {
    "null-text": ((), ("null",), ()),
    "direct": ((), ("offset",), ()),
    "edit-friendly": ((), ("map",), ()),
    "edict": (("y",), (), ("p",)),
    "bdia": ((), ("gamma",), ()),
    "belm": ((), ("gamma",), ()),
    "dual-chain": (("z",), ("eps",), ()),
}


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_keeps_is_cut_with_its_walk(toy, points, method):
    path = invert(toy, points, toy.condition("left", 3), method, steps=5)
    part = path.truncate(3)
    per_node, per_step, constants = STORED.get(method, ((), (), ()))
    assert (*part.per_node,) == (*path.per_node,) == per_node
    assert (*part.per_step,) == (*path.per_step,) == per_step
    assert (*part.constants,) == (*path.constants,) == constants
    for name in per_node:
        assert torch.equal(part.per_node[name], path.per_node[name][:4])
    for name in per_step:
        assert torch.equal(part.per_step[name], path.per_step[name][:3])
    assert reconstruct(toy, part).xs.shape == (4, 2, 2, 1, 1)


def test_a_part_ends_at_a_node_of_the_walk(walk):
    for node in (0, 3, -1):
        with pytest.raises(ValueError, match=f"expected a node between 1 and 2, got {node}"):
            walk.truncate(node)


# A walk several times over.


@pytest.mark.parametrize("method", METHODS)
def test_a_repeated_walk_walks_back_as_each_alone(toy, points, method):
    # Each sample has a prompt of its own, which has to come along.
    text = torch.cat([toy.condition(prompt).text for prompt in ("left", "right top")])
    condition = replace(toy.condition("", 3), text=text)
    path = invert(toy, points, condition, method, steps=4)
    many = path.repeat(3)
    assert torch.equal(many.xs, torch.cat([path.xs] * 3, dim=1))
    back, expected = reconstruct(toy, many), reconstruct(toy, path)
    torch.testing.assert_close(back.xs, torch.cat([expected.xs] * 3, dim=1))
    assert back.nfe == expected.nfe


def test_null_embeddings_of_each_sample_are_repeated_in_order(toy, points):
    path = invert(toy, points, toy.condition("left", 3), "null-text", steps=4)
    null, many = path.per_step["null"], path.repeat(2).per_step["null"]
    assert null.shape == (4, 2, 1, 3) and not torch.equal(null[:, 0], null[:, 1])
    assert torch.equal(many[:, :2], null) and torch.equal(many[:, 2:], null)


def test_repeating_once_gives_every_sample_its_prompt(toy, points):
    condition = toy.condition("left").with_guidance(7.5, DEFAULT_SCHEDULE)
    once = invert(toy, points, condition, steps=4).repeat(1)
    assert once.condition.text.shape == once.condition.null.shape == (2, 1, 3)
    assert (once.condition.guidance_scale, once.condition.schedule) == (7.5, DEFAULT_SCHEDULE)
    assert reconstruct(toy, once).nfe == 0
