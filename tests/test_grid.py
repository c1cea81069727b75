"""Noise levels and moves agree with diffusers' schedulers."""

import threading

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, EulerDiscreteScheduler
from tqdm import tqdm

from erddci.grid import (
    Grid,
    cumulative_alphas,
    ddim_step,
    stable_diffusion_scheduler,
    to_epsilon,
)

# Steps, and how a scheduler ends at the image.  With more than 500 steps and an offset, the last
# step of diffusers ends at timestep 0, not at the final alpha that the scheduler has for it.
WALKS = [
    (steps, {"steps_offset": offset, "set_alpha_to_one": to_one})
    for steps in (1, 2, 7, 10, 50, 999)
    for offset in (0, 1)
    for to_one in (False, True)
    if (steps, offset, to_one) != (999, 1, True)
]


def schedule(kind, steps, **changes):
    """A scheduler of diffusers on Stable Diffusion's schedule, calculating in float64."""
    scheduler = kind.from_config(stable_diffusion_scheduler().config, **changes)
    scheduler.set_timesteps(steps)
    ends = ("alphas_cumprod", "final_alpha_cumprod", "initial_alpha_cumprod")
    for name in (each for each in ends if hasattr(scheduler, each)):
        setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid_of(scheduler, steps):
    return Grid.from_scheduler(dict(scheduler.config), steps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("steps", "ends"), WALKS)
def test_walk_down_equals_ddim_scheduler(steps, ends, prediction):
    scheduler = schedule(DDIMScheduler, steps, prediction_type=prediction, **ends)
    grid = grid_of(scheduler, steps)
    mine = theirs = normal(0, 2, 4, 3, 3)
    for i, t in zip(grid.sampling_nodes(), scheduler.timesteps, strict=True):
        output = normal(i, *mine.shape)
        eps = to_epsilon(output, mine, grid.alphas[i], prediction)
        mine = grid.step(mine, eps, i, i - 1)
        theirs = scheduler.step(output, t, theirs).prev_sample
        assert t == grid.t[i]
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("steps", "ends"), WALKS)
def test_walk_up_equals_ddim_inverse_scheduler(steps, ends, prediction):
    scheduler = schedule(DDIMInverseScheduler, steps, prediction_type=prediction, **ends)
    grid = grid_of(scheduler, steps)
    mine = theirs = normal(0, 2, 4, 3, 3)
    for i, t in zip(grid.inversion_nodes(), scheduler.timesteps, strict=True):
        output = normal(i, *mine.shape)
        # The inverse scheduler reads the output at the noise level where x stands.
        eps = to_epsilon(output, mine, grid.alphas[i - 1], prediction)
        mine = grid.step(mine, eps, i - 1, i)
        theirs = scheduler.step(output, t, theirs).prev_sample
        assert t == grid.t[i]
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50, 1000])
def test_nodes_are_the_timesteps_of_the_scheduler(spacing, steps):
    scheduler = schedule(DDIMScheduler, steps, timestep_spacing=spacing, steps_offset=0)
    grid = grid_of(scheduler, steps)
    assert grid.t[0] == 0 and grid.num_steps == steps
    assert torch.equal(grid.t[1:], scheduler.timesteps.flip(0))
    assert torch.equal(grid.alphas[1:], scheduler.alphas_cumprod[grid.t[1:]])
    assert grid.alphas[0] == scheduler.final_alpha_cumprod


def test_stable_diffusion_walks_fifty_steps_from_981():
    grid = grid_of(stable_diffusion_scheduler(), 50)
    assert grid.t.tolist() == [0, *range(1, 982, 20)]
    assert grid.alphas.dtype == torch.float64
    # Published values of Stable Diffusion's schedule: betas from 0.00085 to 0.012, as squares.
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = (1 - betas).cumprod(0)[grid.t]
    torch.testing.assert_close(grid.alphas, expected, rtol=1e-5, atol=0)


def test_trailing_walk_equals_ddim_scheduler():
    # diffusers steps by whole divisions of the training timesteps, so N must divide 1000.
    scheduler = schedule(DDIMScheduler, 10, timestep_spacing="trailing")
    grid = grid_of(scheduler, 10)
    mine = theirs = normal(0, 1, 4, 3, 3)
    for i, t in zip(grid.sampling_nodes(), scheduler.timesteps, strict=True):
        eps = normal(i, *mine.shape)
        mine, theirs = grid.step(mine, eps, i, i - 1), scheduler.step(eps, t, theirs).prev_sample
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_last_timestep_never_leaves_the_schedule():
    assert grid_of(stable_diffusion_scheduler(), 1000).t[-1] == 999


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_every_number_of_steps_has_as_many_nodes(spacing, count):
    # DDIMScheduler itself lists 62 timesteps for 61 trailing steps, the last of them -1.
    config = dict(stable_diffusion_scheduler().config)
    config |= {"num_train_timesteps": count, "timestep_spacing": spacing, "steps_offset": 0}
    for steps in range(1, count + 1, 3 if count == 1000 else 1):
        grid = Grid.from_scheduler(config, steps)
        assert grid.num_steps == steps
        assert grid.t[1] >= 0 and grid.t[-1] < count and (grid.t[1:].diff() > 0).all()


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_zero_terminal_snr_ends_just_above_zero(spacing, beta_schedule):
    scheduler = schedule(
        EulerDiscreteScheduler,
        10,
        beta_schedule=beta_schedule,
        timestep_spacing=spacing,
        rescale_betas_zero_snr=True,
    )
    mine = cumulative_alphas(DDIMScheduler.from_config(scheduler.config))
    torch.testing.assert_close(mine[:-1], scheduler.alphas_cumprod[:-1], rtol=1e-6, atol=0)
    assert mine[-1] == min(2**-24, mine[-2])
    grid = grid_of(scheduler, 10)
    assert (grid.alphas[-1] == mine[-1]) == (spacing != "leading")


def test_alphas_above_zero_are_left_as_they_are():
    scheduler = stable_diffusion_scheduler()
    assert torch.equal(cumulative_alphas(scheduler), scheduler.alphas_cumprod.double())
    cosine = DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    assert cosine.alphas_cumprod[-1] < 2**-24
    assert torch.equal(cumulative_alphas(cosine), cosine.alphas_cumprod.double())


def test_step_between_coinciding_nodes_does_nothing():
    scheduler = schedule(DDIMScheduler, 10, steps_offset=0, set_alpha_to_one=False)
    grid = grid_of(scheduler, 10)
    x, eps = normal(0, 1, 4, 3, 3), normal(1, 1, 4, 3, 3)
    assert grid.alphas[0] == grid.alphas[1]
    assert torch.equal(grid.step(x, eps, 0, 1), x)
    assert torch.equal(grid.step(x, eps, 1, 0), x)


def test_there_and_back_along_one_noise_is_identity():
    grid = grid_of(stable_diffusion_scheduler(), 50)
    x, eps = normal(0, 1, 4, 3, 3), normal(1, 1, 4, 3, 3)
    for start, end in [(0, 1), (0, 50), (17, 18), (50, 3)]:
        back = grid.step(grid.step(x, eps, start, end), eps, end, start)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-12)


def test_move_adds_noise_in_proportion_to_sigma():
    grid = grid_of(stable_diffusion_scheduler(), 50)
    x, eps = normal(0, 1, 4, 3, 3), normal(1, 1, 4, 3, 3)
    for start, end in [(0, 1), (10, 40), (50, 49)]:
        a, b = grid.alphas[start], grid.alphas[end]
        y = x / a.sqrt() + (grid.sigmas[end] - grid.sigmas[start]) * eps
        torch.testing.assert_close(grid.step(x, eps, start, end), y * b.sqrt())
    assert grid.sigmas[7] == ((1 - grid.alphas[7]) / grid.alphas[7]) ** 0.5


def test_move_by_hand():
    # From a = 0.64 to b = 0.36: √(b/a) = 0.75 and √0.64 − √(0.36·0.36/0.64) = 0.8 − 0.45.
    a, b = torch.tensor(0.64, dtype=torch.float64), torch.tensor(0.36, dtype=torch.float64)
    x, eps = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 10.0)
    assert ddim_step(x, eps, a, b).item() == pytest.approx(0.75 * 2 + 0.35 * 10)


def test_noise_of_every_prediction_type_is_the_noise_that_was_added():
    a = torch.tensor(0.3, dtype=torch.float64)
    image, noise = normal(0, 1, 4, 3, 3), normal(1, 1, 4, 3, 3)
    x = a.sqrt() * image + (1 - a).sqrt() * noise
    velocity = a.sqrt() * noise - (1 - a).sqrt() * image
    for kind, output in [("epsilon", noise), ("v_prediction", velocity), ("sample", image)]:
        torch.testing.assert_close(to_epsilon(output, x, a, kind), noise)
    with pytest.raises(ValueError, match="unknown prediction type 'flow'"):
        to_epsilon(noise, x, a, "flow")


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_outside_the_schedule_are_refused(steps):
    with pytest.raises(ValueError, match="between 1 and 1000"):
        grid_of(stable_diffusion_scheduler(), steps)


@pytest.mark.parametrize(
    ("t", "alphas", "words"),
    [
        ([0, 1, 2], [0.9, 0.5], "as many timesteps as alphas"),
        ([0], [0.9], "two or more"),
        ([[0, 1]], [[0.9, 0.5]], "as many timesteps as alphas"),
        ([0, 1], [0.5, 0.9], "decrease"),
    ],
)
def test_impossible_grids_are_refused(t, alphas, words):
    with pytest.raises(ValueError, match=words):
        Grid(torch.tensor(t), torch.tensor(alphas))


def test_walks_in_a_thread_draw_no_progress_bar():
    grid, found = Grid.from_scheduler(stable_diffusion_scheduler().config, 3), []
    thread = threading.Thread(
        target=lambda: found.extend([grid.inversion_nodes(), grid.sampling_nodes()])
    )
    thread.start()
    thread.join()
    assert found == [range(1, 4), range(3, 0, -1)]
    assert isinstance(grid.inversion_nodes(), tqdm)
