"""Guided noise, the rows it costs, and when two conditions ask for the same."""

import math

import pytest
import torch

from erddci.guidance import (
    DEFAULT_SCHEDULE,
    Condition,
    GuidanceSchedule,
    guide_known,
    guided_noise,
)


class Recorder:
    """A network whose answer depends on the latent, the timestep and the prompt of each row."""

    def __init__(self):
        self.nfe = []

    def __call__(self, x, t, text):
        self.nfe.append(len(x))
        assert t.shape == (len(x),) and len(text) == len(x)
        return x * text.mean((1, 2))[:, None, None, None] + t[:, None, None, None]


@pytest.fixture
def network():
    return Recorder()


def condition(w, text=(3.0,), null=(-1.0,), schedule=None):
    prompts = (torch.tensor(each)[:, None, None].expand(-1, 2, 5) for each in (text, null))
    return Condition(*prompts, guidance_scale=w, schedule=schedule)


X = torch.arange(1.0, 9.0).reshape(2, 1, 2, 2)
T = torch.tensor(7.0)


@pytest.mark.parametrize(("w", "rows"), [(0, 2), (1, 2), (0.5, 4), (7.5, 4), (-2, 4)])
def test_rows_and_value(network, w, rows):
    # Conditional 3x + 7, unconditional −x + 7, so guided −x + 7 + 4wx.
    torch.testing.assert_close(guided_noise(network, X, T, condition(w)), -X + 7 + 4 * w * X)
    assert network.nfe == [rows]


def test_every_row_has_its_own_prompt_and_timestep(network):
    guided = guided_noise(
        network, X, torch.tensor([7.0, 9.0]), condition(2, (3.0, 5.0), (-1.0, 0.0))
    )
    first, second = X[:1], X[1:]
    expected = [-first + 7 + 2 * 4 * first, 9 + 2 * 5 * second]
    torch.testing.assert_close(guided, torch.cat(expected))


def test_prompts_repeat_over_a_batch_that_holds_every_sample_twice(network):
    once = guided_noise(network, X, T, condition(1, (3.0, 5.0)))
    twice = guided_noise(network, X.repeat(2, 1, 1, 1), T, condition(1, (3.0, 5.0)))
    torch.testing.assert_close(twice, once.repeat(2, 1, 1, 1))


def test_wrong_number_of_prompts_is_refused(network):
    with pytest.raises(ValueError, match="each of 2 latents, got 3 prompts"):
        guided_noise(network, X, T, condition(1, (1.0, 2.0, 3.0)))


def test_at_changes_the_scale_alone():
    before = condition(1)
    after = before.with_guidance(7.5)
    assert after.guidance_scale == 7.5 and before.guidance_scale == 1
    assert after.text is before.text and after.null is before.null


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (condition(1), condition(1), True),
        (condition(1), condition(2), False),
        (condition(1), condition(1, text=(4.0,)), False),
        (condition(1), condition(1, null=(4.0,)), True),  # w = 1 asks no negative prompt
        (condition(0), condition(0, text=(4.0,)), True),  # w = 0 asks no prompt
        (condition(0), condition(0, null=(4.0,)), False),
        (condition(3), condition(3, null=(4.0,)), False),
        (condition(3), condition(3, text=(4.0,)), False),
        (condition(1), condition(1, text=(3.0, 3.0)), False),
    ],
)
def test_same_looks_at_what_the_network_is_asked(one, other, same):
    assert one.equivalent(other) is same and other.equivalent(one) is same


# GuidanceSchedule control.


def shares(schedule, *t):
    return schedule.weight(torch.tensor(t, dtype=torch.float64)).tolist()


def test_share_by_hand():
    assert shares(GuidanceSchedule(), 0, 1, 500, 1000) == [1, 1, 1, 1]
    window = GuidanceSchedule(interval=(200, 600))
    assert shares(window, 0, 199, 200, 400, 600, 601, 999) == [0, 0, 1, 1, 1, 0, 0]
    assert shares(GuidanceSchedule(power=1), 0, 250, 1000) == [0, 0.25, 1]
    assert shares(GuidanceSchedule(power=2), 500, 1000) == [0.25, 1]
    both = GuidanceSchedule(interval=(500, 1000), power=3)
    assert shares(both, 100, 499, 500, 1000) == [0, 0, 0.125, 1]
    # The other forms do not scale guidance.
    assert shares(GuidanceSchedule(guide_inversion=True, anchor=0.5, clip=0.1), 0, 500) == [1, 1]


def test_share_of_whole_timesteps_is_that_of_numbers():
    t = torch.tensor([0, 1, 37, 981])
    fading = GuidanceSchedule(power=4)
    torch.testing.assert_close(fading.weight(t).double(), fading.weight(t.double()))
    ends = torch.tensor([0, 599, 600, 1000]).double()
    torch.testing.assert_close(
        DEFAULT_SCHEDULE.weight(ends), torch.tensor([0, 0, 0.1296, 1]).double()
    )


def test_scale_by_hand():
    t = torch.tensor([0, 500, 1000])
    assert condition(7.5).scale(t).tolist() == [7.5] * 3
    assert condition(7.5, schedule=GuidanceSchedule((100, 600))).scale(t).tolist() == [1, 7.5, 1]
    assert condition(9, schedule=GuidanceSchedule(power=2)).scale(t).tolist() == [1, 3, 9]
    assert condition(0, schedule=GuidanceSchedule(power=1)).scale(t).tolist() == [1, 0.5, 0]
    assert condition(1, schedule=GuidanceSchedule(power=1)).scale(t).tolist() == [1, 1, 1]
    one = condition(3, schedule=GuidanceSchedule(power=1)).scale(torch.tensor(250))
    assert one.shape == () and one.dtype == torch.float64 and one == 1.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": (600, 200)},
        {"power": -1.0},
        {"anchor": 1.1},
        {"anchor": -0.1},
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": math.nan},
        {"power": math.nan},
    ],
)
def test_wrong_dynamic_control_is_refused(wrong):
    with pytest.raises(
        ValueError, match=r"expected interval = .lowest, highest., power ≥ 0, anchor"
    ):
        GuidanceSchedule(**wrong)


def test_guidance_outside_of_the_window_costs_one_row(network):
    schedule = GuidanceSchedule((200, 600))
    torch.testing.assert_close(
        guided_noise(network, X, torch.tensor(100.0), condition(5, schedule=schedule)), 3 * X + 100
    )
    torch.testing.assert_close(
        guided_noise(network, X, torch.tensor(300.0), condition(5, schedule=schedule)),
        -X + 300 + 5 * 4 * X,
    )
    assert network.nfe == [2, 4]


def test_rows_of_one_batch_have_the_guidance_of_their_timesteps(network):
    # At t = 100 the window is shut and w is 1, at 500 it is 1 + 2·0.5, at 1000 it is 3.
    schedule, x = GuidanceSchedule((200, 1000), power=1), torch.cat([X, X[:1]])
    t = torch.tensor([100.0, 500.0, 1000.0])
    guided = guided_noise(network, x, t, condition(3, schedule=schedule))
    w = torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    torch.testing.assert_close(guided, -x + t[:, None, None, None] + w * 4 * x)
    assert network.nfe == [6]


# Clipping.


def of_size(*sizes):
    """Noise whose RMS is known: each sample is ± its size everywhere."""
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0]).reshape(1, 1, 2, 2).double()
    return torch.tensor(sizes)[:, None, None, None] * signs


def test_clip_by_hand():
    # ε_c has RMS 2 and ε_c − ε_u has 1, so w = 4 pushes by 3 where clip = 0.5 allows 1.
    conditional, unconditional = of_size(2.0), of_size(1.0)
    t = torch.tensor(500)

    def pushed(w, clip, unconditional=unconditional):
        found = condition(w, schedule=GuidanceSchedule(clip=clip))
        return found.guided(unconditional, conditional, t)

    torch.testing.assert_close(pushed(4, 0.5), of_size(3.0))
    torch.testing.assert_close(pushed(4, 1.5), of_size(5.0))
    torch.testing.assert_close(pushed(4, 9.0), of_size(5.0))
    torch.testing.assert_close(pushed(1.5, 0.5), of_size(2.5))  # small enough to be left alone
    torch.testing.assert_close(pushed(-2, 0.5), of_size(1.0))  # the other way
    torch.testing.assert_close(pushed(4, 0.5, of_size(3.0)), of_size(1.0))


@pytest.mark.parametrize("clip", [0.01, 0.3, 2.0])
def test_clipped_guidance_never_adds_more(clip):
    generator = torch.Generator().manual_seed(0)
    unconditional, conditional = torch.randn(2, 5, 4, 8, 8, generator=generator).double()
    t = torch.tensor([0, 1, 300, 700, 1000])
    found = condition(7.5, schedule=GuidanceSchedule(power=1, clip=clip))
    push = found.guided(unconditional, conditional, t) - conditional
    most = clip * conditional.square().mean((1, 2, 3)).sqrt()
    assert (push.square().mean((1, 2, 3)).sqrt() <= most * (1 + 1e-12)).all()
    # Its direction is that of guidance.
    free = (found.scale(t) - 1)[:, None, None, None] * (conditional - unconditional)
    parallel = torch.nn.functional.cosine_similarity(push.flatten(1), free.flatten(1))
    torch.testing.assert_close(parallel[1:], torch.ones(4).double())
    assert (push[0] == 0).all()  # at t = 0 guidance has faded


def test_no_push_stays_none():
    zero, some = of_size(0.0, 0.0), of_size(2.0, 0.0)
    clipped = condition(7.5, schedule=GuidanceSchedule(clip=0.5))
    for conditional in (zero, some):  # nothing to push by, and nothing to measure it with
        assert torch.equal(clipped.guided(conditional, conditional, torch.tensor(9)), conditional)
    # Where ε_c is 0, any push is too much.
    assert torch.equal(clipped.guided(some, zero, torch.tensor(9))[:1], zero[:1])


def test_an_endless_clip_is_none():
    unconditional, conditional = of_size(1.0, 3.0), of_size(2.0, 0.5)
    plain, endless = condition(7.5), condition(7.5, schedule=GuidanceSchedule(clip=math.inf))
    expected = plain.guided(unconditional, conditional, T)
    assert torch.equal(endless.guided(unconditional, conditional, T), expected)
    wide = condition(7.5, schedule=GuidanceSchedule(clip=1e6))
    torch.testing.assert_close(wide.guided(unconditional, conditional, T), expected)


def test_every_sample_is_clipped_by_itself():
    unconditional, conditional = of_size(1.0, 0.0, 4.0), of_size(2.0, 1.0, 4.5)
    clipped, t = condition(3, schedule=GuidanceSchedule(clip=0.5)), torch.tensor(500)
    together = clipped.guided(unconditional, conditional, t)
    torch.testing.assert_close(together, of_size(3.0, 1.5, 5.5))


# Conditions and their parts.


def test_at_drops_dynamic_control():
    before = condition(7.5, schedule=DEFAULT_SCHEDULE)
    assert (
        before.with_guidance(3).schedule is None
        and before.with_guidance(3, DEFAULT_SCHEDULE).schedule is DEFAULT_SCHEDULE
    )
    assert before.with_guidance(3).text is before.text


def test_rows_are_those_of_the_batch():
    found = condition(2, (3.0, 5.0), (-1.0,), DEFAULT_SCHEDULE)
    part = found.samples(1, 4, of=6)  # its prompts are 3 5 3 5 3 5
    assert part.text[:, 0, 0].tolist() == [5, 3, 5] and part.null[:, 0, 0].tolist() == [-1] * 3
    assert part.guidance_scale == 2 and part.schedule is DEFAULT_SCHEDULE
    with pytest.raises(ValueError, match="each of 3 latents, got 2 prompts"):
        found.samples(0, 1, of=3)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (condition(3, schedule=DEFAULT_SCHEDULE), condition(3, schedule=DEFAULT_SCHEDULE), True),
        (condition(3, schedule=DEFAULT_SCHEDULE), condition(3), False),
        (
            condition(3, schedule=DEFAULT_SCHEDULE),
            condition(3, schedule=GuidanceSchedule(power=2)),
            False,
        ),
        (condition(1, schedule=DEFAULT_SCHEDULE), condition(1), True),  # w = 1 stays 1
        (condition(1, schedule=DEFAULT_SCHEDULE), condition(1, null=(4.0,)), True),
        (
            condition(3, schedule=DEFAULT_SCHEDULE),
            condition(3, (4.0,), schedule=DEFAULT_SCHEDULE),
            False,
        ),
        (
            condition(3, schedule=DEFAULT_SCHEDULE),
            condition(3, null=(4.0,), schedule=DEFAULT_SCHEDULE),
            False,
        ),
        # w = 0 fades to 1, where the prompt is asked.
        (
            condition(0, schedule=DEFAULT_SCHEDULE),
            condition(0, (4.0,), schedule=DEFAULT_SCHEDULE),
            False,
        ),
        (condition(0, schedule=DEFAULT_SCHEDULE), condition(0, schedule=DEFAULT_SCHEDULE), True),
        (condition(0, schedule=DEFAULT_SCHEDULE), condition(0), False),
    ],
)
def test_same_looks_at_dynamic_control(one, other, same):
    assert one.equivalent(other) is same and other.equivalent(one) is same


# Steering a part that is known.


@pytest.mark.parametrize(
    ("w", "schedule", "rows"),
    [
        (1, None, 0),
        (7.5, None, 2),
        (0, None, 2),
        (7.5, GuidanceSchedule(interval=(0, 100)), 0),  # shut at t = 500
        (7.5, GuidanceSchedule(interval=(400, 600), clip=0.1), 2),
        (7.5, GuidanceSchedule(power=4, guide_inversion=True), 2),
        (7.5, DEFAULT_SCHEDULE, 0),  # shut below t = 600
    ],
)
def test_steering_is_guidance_with_the_prompts_part_known(toy, points, w, schedule, rows):
    asked, t = toy.condition("left").with_guidance(w, schedule), torch.tensor(500)
    conditional = toy(points, t, asked.with_guidance(1))
    before = toy.nfe
    found = guide_known(toy, points, t, asked, conditional)
    assert toy.nfe - before == rows  # of two samples
    torch.testing.assert_close(found, toy(points, t, asked), rtol=0, atol=1e-14)
