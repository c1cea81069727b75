"""The toy denoiser is the ideal one: score and trajectories are known."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import erddci
from erddci.toy import Mixture


@pytest.mark.parametrize("t", [0, 1, 250, 981, 999])
@pytest.mark.parametrize("prompt", ["", "left", "right top"])
def test_noise_is_the_score_of_torch_distributions(toy, t, prompt):
    alpha = toy.scheduler.alphas_cumprod[t].double()
    places = {"left": (-1.0, -0.2), "right": (0.9, 0.1), "top": (0.1, 1.2)}
    means = torch.tensor([places[name] for name in prompt.split() or places]).double()
    spread = (alpha * 0.3**2 + 1 - alpha).sqrt()
    density = MixtureSameFamily(
        Categorical(torch.ones(len(means)).double()),
        Independent(Normal(alpha.sqrt() * means, spread), 1),
    )
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    x.requires_grad_()
    (score,) = torch.autograd.grad(density.log_prob(x).sum(), x)
    mine = toy(x.detach()[..., None, None], torch.tensor(t), toy.condition(prompt))
    torch.testing.assert_close(mine.flatten(1), -(1 - alpha).sqrt() * score)


@pytest.mark.parametrize("asks", ["next", "current"])
def test_walk_of_one_gaussian_follows_the_known_solution(asks):
    # dy/dσ = ε has y − mean ∝ √(s² + σ²) as its solution.
    toy, mean = Mixture({"only": (0.5, -0.3)}, std=0.4), torch.tensor([0.5, -0.3]).double()
    mean = mean[:, None, None]
    y = mean + torch.tensor([0.2, -0.7]).double()[:, None, None]

    def error(steps):
        grid = toy.grid(steps)
        x = (y * grid.alphas[0].sqrt())[None]
        path = erddci.invert(toy, x, toy.condition(), "ddim", steps, timestep=asks)
        walked = path.xT[0] / grid.alphas[-1].sqrt() - mean
        growth = ((0.4**2 + grid.sigmas[-1] ** 2) / (0.4**2 + grid.sigmas[0] ** 2)).sqrt()
        return (walked / (growth * (y - mean)) - 1).abs().max().item()

    assert error(500) < 0.03
    assert error(500) < 0.6 * error(250) < 0.36 * error(125)


def test_rows_and_timesteps_of_a_batch(toy, points):
    times, everything = torch.tensor([3, 900]), toy.condition()
    each = [toy(points[i : i + 1], times[i], everything) for i in (0, 1)]
    before = toy.nfe
    both = toy(points, times, everything)
    assert toy.nfe - before == 2
    torch.testing.assert_close(both, torch.cat(each))
    assert toy(points.float(), times, everything).dtype == torch.float32


def test_samples_repeat_and_spread_as_asked(toy):
    draw = [toy.sample(4000, "left", torch.Generator().manual_seed(s)) for s in (3, 3, 4)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    flat = draw[0].flatten(1)
    expected = torch.tensor([-1.0, -0.2], dtype=torch.float64)
    torch.testing.assert_close(flat.mean(0), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.full_like(expected, 0.3), atol=0.02, rtol=0)


def test_unprompted_samples_come_from_every_component(toy):
    flat = toy.sample(3000, "", torch.Generator().manual_seed(0)).flatten(1)
    nearest = torch.cdist(flat, toy.means).argmin(1).bincount() / 3000
    torch.testing.assert_close(nearest, torch.full((3,), 1 / 3), atol=0.04, rtol=0)


def test_unknown_words_are_refused(toy):
    with pytest.raises(ValueError, match="unknown word 'bottom'.* left, right, top"):
        toy.condition("left bottom")


@pytest.mark.parametrize(("means", "spread"), [({}, 0.2), ({"a": (0.0,)}, 0.0)])
def test_impossible_mixtures_are_refused(means, spread):
    with pytest.raises(ValueError, match="positive spread"):
        Mixture(means, spread)
