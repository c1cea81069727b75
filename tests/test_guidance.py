"""Guided noise, the rows it costs, and when two conditions ask for the same."""

import pytest
import torch

from erddci.guidance import Condition, guide


class Recorder:
    """A network whose answer depends on the latent, the timestep and the prompt of each row."""

    def __init__(self):
        self.rows = []

    def __call__(self, x, t, text):
        self.rows.append(len(x))
        assert t.shape == (len(x),) and len(text) == len(x)
        return x * text.mean((1, 2))[:, None, None, None] + t[:, None, None, None]


@pytest.fixture
def network():
    return Recorder()


def condition(w, text=(3.0,), null=(-1.0,)):
    prompts = (torch.tensor(each)[:, None, None].expand(-1, 2, 5) for each in (text, null))
    return Condition(*prompts, guidance_scale=w)


X = torch.arange(1.0, 9.0).reshape(2, 1, 2, 2)
T = torch.tensor(7.0)


@pytest.mark.parametrize(("w", "rows"), [(0, 2), (1, 2), (0.5, 4), (7.5, 4), (-2, 4)])
def test_rows_and_value(network, w, rows):
    # Conditional 3x + 7, unconditional −x + 7, so guided −x + 7 + 4wx.
    torch.testing.assert_close(guide(network, X, T, condition(w)), -X + 7 + 4 * w * X)
    assert network.rows == [rows]


def test_every_row_has_its_own_prompt_and_timestep(network):
    guided = guide(network, X, torch.tensor([7.0, 9.0]), condition(2, (3.0, 5.0), (-1.0, 0.0)))
    first, second = X[:1], X[1:]
    expected = [-first + 7 + 2 * 4 * first, 9 + 2 * 5 * second]
    torch.testing.assert_close(guided, torch.cat(expected))


def test_prompts_repeat_over_a_batch_that_holds_every_sample_twice(network):
    once = guide(network, X, T, condition(1, (3.0, 5.0)))
    twice = guide(network, X.repeat(2, 1, 1, 1), T, condition(1, (3.0, 5.0)))
    torch.testing.assert_close(twice, once.repeat(2, 1, 1, 1))


def test_wrong_number_of_prompts_is_refused(network):
    with pytest.raises(ValueError, match="each of 2 latents, got 3 prompts"):
        guide(network, X, T, condition(1, (1.0, 2.0, 3.0)))


def test_at_changes_the_scale_alone():
    before = condition(1)
    after = before.at(7.5)
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
    assert one.same(other) is same and other.same(one) is same
