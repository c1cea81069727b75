"""The record of a walk keeps everything it is given."""

import pytest
import torch
from safetensors.torch import save_file

from erddci.grid import Grid
from erddci.guidance import Condition
from erddci.trajectory import Trajectory


@pytest.fixture
def walk():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=dtype)

    grid = Grid(torch.tensor([0, 1, 500]), torch.tensor([0.99, 0.9, 0.2], dtype=torch.float64))
    condition = Condition(
        normal(2, 5, 3, dtype=torch.float32), normal(1, 5, 3, dtype=torch.float32), 2.5, "größer"
    )
    kept = {"z": normal(3, 2, 4, 3, 3), "eps": normal(2, 2, 4, 3, 3)}
    return Trajectory(grid, normal(3, 2, 4, 3, 3), condition, kept, "some", "model@1", 1.5)


def test_image_and_noise_are_the_ends(walk):
    assert torch.equal(walk.image, walk.xs[0]) and torch.equal(walk.noise, walk.xs[2])


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
    assert back.condition.same(walk.condition)
    assert set(back.kept) == {"z", "eps"}
    assert all(torch.equal(back.kept[name], walk.kept[name]) for name in walk.kept)
    assert (back.method, back.model, back.rows) == ("some", "model@1", 1.5)


def test_a_prompt_that_is_its_own_negative_can_be_saved(walk, tmp_path):
    text = walk.condition.text
    shared = Trajectory(walk.grid, walk.xs, Condition(text, text), walk.kept)
    back = Trajectory.load(shared.save(tmp_path / "walk.safetensors"))
    assert torch.equal(back.condition.text, text) and torch.equal(back.condition.null, text)


def test_a_part_of_a_walk_can_be_saved(walk, tmp_path):
    part = Trajectory(walk.grid, walk.xs[:, :1], walk.condition)
    back = Trajectory.load(part.save(tmp_path / "walk.safetensors"))
    assert torch.equal(back.xs, walk.xs[:, :1]) and back.kept == {}


def test_drift_by_hand(walk):
    xs = walk.xs.clone()
    xs[0, 1, 2, 0, 1] += 0.25
    xs[0, 1, 0, 0, 0] += 0.125
    xs[2, 0, 3, 2, 2] -= 4
    other = Trajectory(walk.grid, xs, walk.condition)
    expected = torch.tensor([[0, 0.25], [0, 0], [4, 0]], dtype=torch.float64)
    torch.testing.assert_close(walk.drift(other), expected)
    torch.testing.assert_close(other.drift(walk), expected)
    assert walk.drift(walk).max() == 0


def test_drift_of_walks_of_other_shapes_is_refused(walk):
    shorter = Trajectory(walk.grid, walk.xs[:2], walk.condition)
    with pytest.raises(ValueError, match=r"one shape, got \(3, 2, .*\) and \(2, 2, .*\)"):
        walk.drift(shorter)


def test_noise_and_clean_estimate_by_hand():
    # ᾱ = 0.8, 0.5, 0.2 gives σ = 0.5, 1, 2 and y = x/√ᾱ = 1, 2, −1.
    alphas = torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64)
    y = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    xs = (y * alphas.sqrt()).reshape(3, 1, 1, 1, 1)
    condition = Condition(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    walk = Trajectory(Grid(torch.tensor([0, 1, 2]), alphas), xs, condition)
    # ε = Δy/Δσ = 1/0.5 and −3/1; the image aimed at is y − σε = 2 − 2 and −1 + 6.
    torch.testing.assert_close(walk.eps.flatten(), torch.tensor([2.0, -3.0]).double())
    torch.testing.assert_close(walk.estimates.flatten(), torch.tensor([0.0, 5.0]).double())


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
