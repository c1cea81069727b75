"""Edits: what stays, what every method does with source and target rows, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from erddci import METHODS, invert, reconstruct
from erddci.controls import AttentionStore, LocalBlend, MasaCtrl, PlugAndPlay, PromptToPrompt
from erddci.editing import edit, reconstruct_source, sdedit_trajectory
from erddci.guidance import DEFAULT_SCHEDULE, GuidanceSchedule
from erddci.prompts import align, token_mask

SOURCE = "a small red matte cube on a teal floor"
TARGET = "a small blue matte cube on a teal floor"
EXACT = [name for name, method in METHODS.items() if method.reversible != "approximate"]


def controls(model, target=TARGET, count=1):
    words = align(model.tokenizer, [SOURCE] * count, [target] * count)
    return {
        "none": None,
        "store": AttentionStore(),
        "prompt-to-prompt": PromptToPrompt(words),
        "masactrl": MasaCtrl(),
        "plug-and-play": PlugAndPlay(),
    }


def inverted(model, x, method, w, steps=4):
    """An inversion for edits at w; of methods inverted in either way, under w."""
    guided = True if METHODS[method].both_common and method != "ddim" else None
    return invert(
        model, x, model.condition(SOURCE, guidance_scale=w), method, steps, guided=guided
    )


# The identity: equal prompts and guidance return the image.


@pytest.mark.parametrize("control", ["none", "store", "prompt-to-prompt"])
@pytest.mark.parametrize("w", [1, 7.5])
@pytest.mark.parametrize("method", EXACT)
def test_an_edit_to_the_same_prompt_returns_the_image(tiny64, latents, method, w, control):
    path = inverted(tiny64, latents, method, w)
    steer = controls(tiny64, SOURCE)[control]
    found = edit(tiny64, path, tiny64.condition(SOURCE, guidance_scale=w), steer)
    limit = 1e-10 * max(1, path.xs.abs().max().item())
    assert path.latent_error(reconstruct_source(tiny64, found)).max() < limit
    if method == "direct" and w != 1:  # its target rows are left to guidance, by design
        assert path.latent_error(found.target)[0].max() > 1e-3
    elif method == "direct":
        assert path.latent_error(found.target)[0].max() > limit
    else:
        assert path.latent_error(found.target).max() < limit


@pytest.mark.parametrize(
    "schedule",
    [
        DEFAULT_SCHEDULE,
        GuidanceSchedule(guide_inversion=True),
        GuidanceSchedule((0, 500), guide_inversion=True),
    ],
)
def test_mirrored_dynamic_control_returns_the_image_at_any_guidance(tiny64, latents, schedule):
    condition = tiny64.condition(SOURCE).with_guidance(15, schedule)
    path = invert(tiny64, latents, condition, steps=6)
    assert path.latent_error(reconstruct(tiny64, path, condition)).max() < 1e-10
    assert path.latent_error(edit(tiny64, path, condition).target).max() < 1e-10


def test_the_own_reading_is_no_identity(tiny64, latents):
    path = inverted(tiny64, latents, "dual-chain", 1, steps=10)
    found = edit(tiny64, path, tiny64.condition(SOURCE), evaluate_at="target")
    assert path.latent_error(found.source).max() < 1e-12
    assert path.latent_error(found.target)[0].min() > 1e-4


# What rows do.


@pytest.mark.parametrize(
    "name", ["none", "store", "prompt-to-prompt", "masactrl", "plug-and-play"]
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_edits_under_every_control(tiny, latents, method, name):
    path = inverted(tiny, latents, method, 3)
    found = edit(tiny, path, tiny.condition(TARGET, guidance_scale=3), controls(tiny)[name])
    assert found.target.xs.shape == path.xs.shape and found.target.xs.isfinite().all()
    assert (found.x0 - path.x0).abs().max() > 1e-4
    if method in EXACT:
        assert path.latent_error(reconstruct_source(tiny, found)).max() < 1e-3


def test_storing_changes_nothing_and_costs_a_row_a_step(tiny64, latents):
    path, target = (
        inverted(tiny64, latents, "dual-chain", 1),
        tiny64.condition(TARGET).with_guidance(3),
    )
    alone, watched = edit(tiny64, path, target), edit(tiny64, path, target, AttentionStore())
    assert alone.target.latent_error(watched.target).max() < 1e-12
    assert (alone.nfe, watched.nfe) == (8, 12)
    assert not watched.attention.changed


def test_several_targets_are_edited_as_each_alone(tiny64, latents):
    path = inverted(tiny64, latents, "dual-chain", 1)
    prompts = [TARGET, "a large green shiny sphere on a navy floor"]
    both = tiny64.condition([p for p in prompts for _ in range(2)], guidance_scale=3)
    words = align(tiny64.tokenizer, [SOURCE] * 4, [p for p in prompts for _ in range(2)])
    together = edit(tiny64, path, both, PromptToPrompt(words))
    for number, prompt in enumerate(prompts):
        words = align(tiny64.tokenizer, [SOURCE], [prompt])
        one = edit(tiny64, path, tiny64.condition(prompt).with_guidance(3), PromptToPrompt(words))
        part = replace(together.target, xs=together.target.xs[:, 2 * number : 2 * number + 2])
        assert part.latent_error(one.target).max() < 1e-9


def test_strength_walks_a_part(tiny, latents):
    path = inverted(tiny, latents, "dual-chain", 1, steps=10)
    found = edit(tiny, path.with_strength(0.3), tiny.condition(TARGET))
    assert len(found.target.xs) == 4 and found.nfe == 3
    assert torch.equal(found.target.xT, path.xs[3])


def test_a_mask_keeps_the_rest(tiny, latents):
    path = inverted(tiny, latents, "dual-chain", 1)
    half = np.zeros((16, 16))
    half[:, :8] = 1
    found = edit(tiny, path, tiny.condition(TARGET).with_guidance(3), blend=half)
    assert torch.equal(found.x0[..., 4:], path.x0[..., 4:])
    assert (found.x0 - path.x0)[..., :4].abs().max() > 1e-3


def test_a_blend_learns_its_mask_from_words(tiny, latents):
    path = inverted(tiny, latents, "dual-chain", 1)
    marks = [
        token_mask(tiny.tokenizer, p, [w])[None] for p, w in ((SOURCE, "red"), (TARGET, "blue"))
    ]
    blend = LocalBlend(*marks, threshold=0.9, start=0.0)
    found = edit(
        tiny,
        path,
        tiny.condition(TARGET).with_guidance(3),
        controls(tiny)["prompt-to-prompt"],
        blend=blend,
    )
    seen = blend.mask(found.attention)
    assert seen.shape == (2, 1, 8, 8) and set(seen.unique().tolist()) == {0, 1}
    # The last step is blended by the mask of all maps so far.
    kept = (found.x0 - path.x0).abs().amax(1, keepdim=True)[seen == 0]
    assert kept.max() < 1e-12


def test_anchoring_pulls_to_the_source(tiny, latents):
    path = inverted(tiny, latents, "dual-chain", 1)

    def away(anchor):
        target = tiny.condition(TARGET).with_guidance(3, GuidanceSchedule(anchor=anchor))
        return (edit(tiny, path, target).x0 - path.x0).abs().max()

    assert away(0) > away(0.3) > away(0.9) > 0 and away(1) == 0


def test_no_inversion_is_noise_on_the_image(tiny, latents):
    path = sdedit_trajectory(tiny, latents, tiny.condition(SOURCE), 10)
    assert torch.equal(path.x0, latents) and path.xT.std() > 0.9
    found = edit(tiny, path.with_strength(0.5), tiny.condition(TARGET))
    assert (found.x0 - latents).abs().max() > 1e-3


# What is refused.


def test_wrong_use_is_refused(tiny, toy, points, latents):
    path, target = inverted(tiny, latents, "dual-chain", 1), tiny.condition(TARGET)
    with pytest.raises(ValueError, match="strength in .0, 1., got 0"):
        path.with_strength(0)
    with pytest.raises(
        ValueError, match="unknown evaluate_at 'mine': expected one of shifted, target"
    ):
        edit(tiny, path, target, evaluate_at="mine")
    with pytest.raises(ValueError, match="each of 2 samples, got 3"):
        edit(tiny, path, tiny.condition([TARGET] * 3))
    with pytest.raises(ValueError, match=r"mask of the image .* got \[5, 5\]: resize"):
        edit(tiny, path, target, blend=np.ones((5, 5)))
    with pytest.raises(
        ValueError, match="trajectory of .*tiny@.*, got one of mixture .*another kind of model"
    ):
        edit(tiny, invert(toy, points, toy.condition(), steps=2), target)
    with pytest.raises(ValueError, match="model with attention, got mixture"):
        edit(
            toy,
            invert(toy, points, toy.condition(), steps=2),
            toy.condition("left"),
            AttentionStore(),
        )
