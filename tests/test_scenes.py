"""Scenes, their images and captions, and edits whose true result is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.morphology import dilation, footprint_rectangle

import erddci
from erddci.scenes.captions import LENGTH, tokenizer
from erddci.scenes.classifier import QUESTIONS, AttributeClassifier, attributes, targets
from erddci.scenes.examples import KINDS, _edit, edits, held_out
from erddci.scenes.render import CAMERA, LOOK_AT, render
from erddci.scenes.scene import (
    ATTRIBUTES,
    FIELD_OF_VIEW,
    FLOORS,
    HELD_OUT_SEEDS,
    SHAPES,
    SIZES,
    TRAIN_SEEDS,
    WORDS,
    Scene,
    SceneObject,
    add,
    caption,
    change,
    remove,
    sample_scene,
)

LEFT = SceneObject("large", "red", "matte", "cone", x=-0.7, z=0.1, yaw=0.2)
RIGHT = SceneObject("small", "blue", "shiny", "cube", x=0.8, z=-0.3, yaw=0.9)
PAIR = Scene((LEFT, RIGHT), "teal", light=0.4)
ALONE = Scene((LEFT,), "teal", light=0.4)


@pytest.fixture(scope="module")
def drawn():
    return [sample_scene(seed) for seed in HELD_OUT_SEEDS[:1000]]


def widened(mask, pixels):
    return dilation(mask, footprint_rectangle((2 * pixels + 1,) * 2))


def pixel(point):
    """Where a point in floor units lies in the image: column and row, as a pinhole shows it."""
    eye = CAMERA.astype(float)
    forward = (LOOK_AT - eye) / np.linalg.norm(LOOK_AT - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    seen = np.array([right @ (point - eye), np.cross(right, forward) @ (point - eye)])
    column, row = seen / (forward @ (point - eye)) / FIELD_OF_VIEW * (64, -64) + 63.5
    return column, row


# Drawing scenes.


def test_a_seed_always_gives_the_same_scene_and_bytes():
    seeds = HELD_OUT_SEEDS[:3]
    assert [sample_scene(seed) for seed in seeds] == [sample_scene(seed) for seed in seeds]
    assert len({str(sample_scene(seed)) for seed in seeds}) == 3
    once, again = render(sample_scene(seeds[0])), render(sample_scene(seeds[0]))
    assert once.image.tobytes() == again.image.tobytes()
    assert once.masks.tobytes() == again.masks.tobytes()


def test_training_and_held_out_scenes_are_apart(drawn):
    assert TRAIN_SEEDS.step == HELD_OUT_SEEDS.step == 1
    assert TRAIN_SEEDS.stop <= HELD_OUT_SEEDS.start
    assert not set(drawn) & {sample_scene(seed) for seed in TRAIN_SEEDS[:1000]}


def test_all_kinds_of_scenes_are_drawn_about_equally_often(drawn):
    objects = [thing for scene in drawn for thing in scene.objects]
    for name, values in ATTRIBUTES.items():
        seen = [getattr(thing, name) for thing in objects]
        shares = np.array([seen.count(value) / len(seen) for value in values])
        assert np.abs(shares * len(values) - 1).max() < 0.3
    floors = [scene.floor for scene in drawn]
    assert {floors.count(floor) > 100 for floor in FLOORS} == {True}
    assert 0.6 < np.mean([len(scene.objects) == 2 for scene in drawn]) < 0.7


def test_things_are_in_order_and_apart(drawn):
    for scene in (each for each in drawn if len(each.objects) == 2):
        left, right = scene.objects
        assert right.x - left.x > 1.25
    with pytest.raises(ValueError, match="left to right"):
        Scene((RIGHT, LEFT), "teal", 0.0)
    with pytest.raises(ValueError, match="one or two objects, not 0"):
        Scene((), "teal", 0.0)


# Captions.


def test_captions_say_what_is_there_and_where():
    one, other = "a large red matte cone", "a small blue shiny cube"
    assert caption(ALONE) == f"{one} on a teal floor"
    assert caption(PAIR) == f"{one} left of {other} on a teal floor"
    right_first = replace(PAIR, right_first=True)
    assert caption(right_first) == f"{other} right of {one} on a teal floor"
    assert caption(PAIR, brief=True) == "a red cone left of a blue cube on a teal floor"
    assert caption(ALONE, brief=True) == "a red cone on a teal floor"


def test_every_word_of_a_caption_is_one_token_and_all_fit(drawn):
    words = tokenizer()
    captions = [caption(scene, brief) for scene in drawn for brief in (False, True)]
    assert {word for each in captions for word in each.split()} == set(WORDS)
    for each in captions:
        tokens = words(each).input_ids
        assert words.convert_ids_to_tokens(tokens[1:-1]) == [f"{w}</w>" for w in each.split()]
        assert len(tokens) <= LENGTH
    assert max(len(each.split()) for each in captions) <= LENGTH - 2


def test_words_have_the_same_numbers_in_every_build():
    # The text encoder is trained with one build and used with another.
    for words in (tokenizer(), tokenizer()):
        numbers = words.convert_tokens_to_ids([f"{word}</w>" for word in WORDS])
        assert numbers == [*range(2, 2 + len(WORDS))] and len(words) == 142
        assert (words.bos_token_id, words.eos_token_id, words.pad_token_id) == (0, 1, 1)


# Images.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("x", "z"), [(0, 0), (1.1, 0.5), (-1.2, -0.6)])
def test_a_sphere_covers_the_disc_that_geometry_predicts(size, x, z):
    radius = {"small": 0.42, "large": 0.68}[size]
    ball = SceneObject(size, "pink", "matte", "sphere", x, z, yaw=0.0)
    (mask,) = render(Scene((ball,), "grey", 0.0)).masks
    centre = np.array([x, radius, z])
    rows, columns = np.nonzero(mask)
    assert np.abs(np.subtract(pixel(centre), (columns.mean(), rows.mean()))).max() < 1
    # The half angle of its cone of sight is asin(r/d); off the axis the outline is stretched.
    away = centre - CAMERA
    distance = np.linalg.norm(away)
    cosine = away @ (LOOK_AT - CAMERA) / distance / np.linalg.norm(LOOK_AT - CAMERA)
    sine = radius / distance
    minor = cosine * sine * np.sqrt(1 - sine**2) / (cosine**2 - sine**2)
    major = sine / np.sqrt(cosine**2 - sine**2)
    assert mask.sum() == pytest.approx(np.pi * minor * major * (64 / FIELD_OF_VIEW) ** 2, rel=0.03)


@pytest.mark.parametrize(
    ("shape", "height"), [("sphere", 2.0), ("cube", 1.64), ("cylinder", 1.75), ("cone", 2.0)]
)
def test_things_stand_on_the_floor_and_are_as_tall_as_they_should(shape, height):
    thing = replace(LEFT, shape=shape)
    (mask,) = render(Scene((thing,), "grey", 0.0)).masks

    def covered(y):
        column, row = pixel(np.array([thing.x, y * thing.radius, thing.z]))
        return mask[round(row), round(column)]

    assert covered(0.15) and covered(height / 2) and covered(0.9 * height)
    # From above, the top of anything but a cone reaches further up than its axis.
    assert not covered(height + 0.6)


def test_masks_tell_the_things_apart(drawn):
    for scene in drawn[:10]:
        rendering = render(scene)
        assert rendering.image.shape == (128, 128, 3) and rendering.image.dtype == np.uint8
        assert rendering.masks.shape == (len(scene.objects), 128, 128)
        assert rendering.masks.sum(0).max() == 1
        assert (rendering.masks.sum((1, 2)) > 100).all()
    left, right = render(PAIR).masks
    assert np.nonzero(left)[1].mean() < 64 < np.nonzero(right)[1].mean()


def test_colours_are_those_of_the_caption():
    flat = replace(LEFT, shape="sphere")
    for colour, strongest in {"red": 0, "green": 1, "blue": 2}.items():
        rendering = render(Scene((replace(flat, colour=colour),), "white", 0.0))
        assert rendering.image[rendering.masks[0]].mean(0).argmax() == strongest


def test_only_shiny_things_have_highlights():
    matte, shiny = (render(change(ALONE, 0, material=m)) for m in ("matte", "shiny"))
    mask = matte.masks[0]
    assert np.array_equal(mask, shiny.masks[0])
    green = [each.image[mask][:, 1].max() for each in (matte, shiny)]
    assert green[0] < 120 < green[1]  # a red thing turns white only where it mirrors the light


def test_a_scene_can_be_rendered_at_another_size():
    small, usual = render(PAIR, 64), render(PAIR)
    halved = usual.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert small.image.shape == (64, 64, 3)
    assert np.abs(small.image - halved).mean() < 2


# Edits.


def test_a_colour_edit_changes_the_thing_alone():
    before, after = render(PAIR), render(change(PAIR, 0, colour="green"))
    changed = (before.image != after.image).any(2)
    assert np.array_equal(before.masks, after.masks)
    assert not (changed & ~widened(before.masks[0], 1)).any()
    assert changed[before.masks[0]].all()


def test_a_floor_edit_leaves_matte_things_alone():
    before, after = render(ALONE), render(change(ALONE, floor="navy"))
    changed = (before.image != after.image).any(2)
    inside = ~widened(~before.masks[0], 1)
    assert not (changed & inside).any()
    assert changed[~widened(before.masks[0], 1)].all()


@pytest.mark.parametrize(
    "edited", [change(PAIR, 1, size="large"), change(PAIR, 1, shape="sphere"), remove(PAIR, 1)]
)
def test_an_edit_of_one_thing_leaves_the_other_side_alone(edited):
    # The light comes from the left, so the shadow of the right thing falls to the right.
    before, after = render(replace(PAIR, light=-0.6)), render(replace(edited, light=-0.6))
    changed = (before.image != after.image).any(2)
    left = widened(before.masks[0], 1)
    assert changed[before.masks[1]].any()
    assert not (changed & left).any() and not changed[:, :56].any()


def test_change_keeps_everything_else():
    changed = change(PAIR, 1, colour="pink", shape="cone")
    assert changed.objects == (LEFT, replace(RIGHT, colour="pink", shape="cone"))
    assert replace(changed, objects=PAIR.objects) == PAIR
    assert change(PAIR, floor="white") == replace(PAIR, floor="white")
    assert remove(PAIR, 0).objects == (RIGHT,) and remove(PAIR, 1).objects == (LEFT,)
    assert add(ALONE, RIGHT) == PAIR and add(remove(PAIR, 0), LEFT) == PAIR


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda: change(PAIR, 0, colour="ultraviolet"), "unknown colour 'ultraviolet'.*red, or"),
        (lambda: change(PAIR, 0, weight="heavy"), "unknown attribute 'weight'.*size, c"),
        (lambda: change(PAIR, 0, x="1"), "unknown attribute 'x'"),
        (lambda: change(PAIR, floor="lava"), "unknown floor 'lava'.*white, grey"),
        (lambda: change(PAIR, 2, colour="red"), "index of one of 2 objects, got 2"),
        (lambda: change(PAIR, -1, colour="red"), "index of one of 2 objects, got -1"),
        (lambda: change(PAIR, colour="red"), "index of one of 2 objects, got None"),
        (lambda: remove(ALONE, 0), "scene of two objects"),
        (lambda: remove(PAIR, 2), "expected 0 or 1"),
        (lambda: add(PAIR, replace(LEFT, x=0.1)), "room for the new one"),
        (lambda: add(ALONE, replace(RIGHT, x=0.5)), "room for the new one"),
    ],
)
def test_impossible_edits_are_refused(edit, words):
    with pytest.raises(ValueError, match=words):
        edit()


# Examples and measurements.


def test_every_kind_of_edit_has_an_example():
    examples = erddci.examples()
    names = "colour shape material size floor replace remove add".split()
    assert [example.name for example in examples] == names
    known = tokenizer().init_kwargs["words"]
    for example in examples:
        assert example.source != example.target
        assert not set(f"{example.source} {example.target}".split()) - set(known)
        pixels = np.asarray(example.image), np.asarray(example.truth)
        assert all(each.shape == (128, 128, 3) for each in pixels)
        assert (pixels[0] != pixels[1]).any(2).mean() > 0.005
        assert (caption(example.scene), caption(example.truth_scene)) == (
            example.source,
            example.target,
        )
        assert np.array_equal(render(example.truth_scene).image, pixels[1])
        assert len(example.masks) == len(example.scene.objects)
        assert len(example.truth_masks) == len(example.truth_scene.objects)


def test_examples_change_one_thing_only():
    # What the reader would have to see: one answer differs, or two where one thing is replaced.
    for example in erddci.examples():
        before, after = attributes(example.scene), attributes(example.truth_scene)
        differ = {q for q in before | after if before.get(q) != after.get(q)}
        if example.name in ("remove", "add"):
            assert "count" in differ and "floor" not in differ
        elif example.name == "replace":
            assert {q.split()[-1] for q in differ} == {"colour", "shape"} and len(differ) == 2
        else:
            assert len(differ) == 1 and differ.pop().split()[-1] == example.name


@pytest.fixture(scope="module")
def edited():
    return edits(3 * len(KINDS))


def shown(example):
    images = example.image.tobytes(), example.truth.tobytes()
    return example.name, example.source, example.target, *images


def test_edits_are_the_same_every_time_and_kinds_take_turns(edited):
    assert [example.name for example in edited] == [*KINDS] * 3
    assert list(map(shown, edits(4))) == list(map(shown, edited[:4]))
    assert len({example.source for example in edited}) == len(edited)
    floors = edits(2, ("floor", "size"), start=50)
    assert [example.name for example in floors] == ["floor", "size"]
    assert not {shown(example) for example in floors} & {shown(example) for example in edited}


def test_edits_change_what_they_are_named_after(edited):
    for example in edited:
        before, after = attributes(example.scene), attributes(example.truth_scene)
        differ = {q for q in before | after if before.get(q) != after.get(q)}
        if example.name in ("remove", "add"):
            counts = [len(scene.objects) for scene in (example.scene, example.truth_scene)]
            assert counts == ([2, 1] if example.name == "remove" else [1, 2])
        else:
            changed = {"replace": ["colour", "shape"]}.get(example.name, [example.name])
            assert sorted(question.split()[-1] for question in differ) == changed
            assert len({q.split()[0] for q in differ}) == 1  # of one thing


def test_edits_keep_all_else(edited):
    for example in edited:
        before, after = example.scene, example.truth_scene
        kept = set(before.objects) & set(after.objects)
        assert replace(after, objects=before.objects, floor=before.floor) == before
        assert (after.floor == before.floor) is (example.name != "floor")
        if example.name == "floor":
            assert after.objects == before.objects
            continue
        # All things but one are kept; a thing that changed has not moved.
        most = max(len(before.objects), len(after.objects))
        assert len(kept) == most - 1
        if example.name not in ("remove", "add"):
            poses = [[(t.x, t.z, t.yaw) for t in scene.objects] for scene in (before, after)]
            assert poses[0] == poses[1]


@pytest.mark.parametrize("kind", ["colour", "shape"])
def test_every_value_can_be_asked_for(kind):
    # From a stream of their own: that of the scene would never make some things purple.
    found = set()
    for seed in HELD_OUT_SEEDS[:300]:
        before = sample_scene(seed)
        after = _edit(before, kind, np.random.default_rng((seed, 1)))
        if len(before.objects) == 2:
            found |= {getattr(t, kind) for t in after.objects if t not in before.objects}
    assert found == set(ATTRIBUTES[kind])


def test_edits_show_what_their_prompts_say(edited):
    for example in edited:
        before, after = example.source.split(), example.target.split()
        if example.name in ("remove", "add"):
            long, short = sorted((before, after), key=len, reverse=True)
            # "a large red matte cone left of", or "right of a large red matte cone"
            assert len(long) - len(short) == 7 and "of" not in short
            assert short[:5] in (long[:5], long[7:12]) and short[5:] == long[12:]
        else:
            assert len(before) == len(after)
            differ = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
            values = [ATTRIBUTES.get(name, tuple(FLOORS)) for name in example.name.split()]
            if example.name == "replace":
                values = [ATTRIBUTES["colour"], ATTRIBUTES["shape"]]
            assert len(differ) == len(values)
            for pair, known in zip(differ, values, strict=True):
                assert set(pair) <= set(known)
        pixels = np.asarray(example.image), np.asarray(example.truth)
        assert np.array_equal(pixels[0], render(example.scene).image)
        assert np.array_equal(pixels[1], render(example.truth_scene).image)
        assert len(example.masks) == len(example.scene.objects)
        assert len(example.truth_masks) == len(example.truth_scene.objects)


def test_edits_come_from_held_out_seeds_in_order(edited):
    held = {sample_scene(seed): seed for seed in HELD_OUT_SEEDS[10_000:10_500]}
    seeds = [held[example.scene] for example in edited]
    assert seeds == sorted(set(seeds))
    assert edits(1, ("floor",), start=7)[0].scene == sample_scene(1_000_007)


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_many_edits_of_a_kind_that_fits_few_scenes(count):
    # An added thing needs a scene of one thing and room beside it: one seed in fifteen has them.
    assert [example.name for example in edits(count, ("add",))] == ["add"] * count


def test_impossible_sets_of_edits_are_refused():
    with pytest.raises(ValueError, match="unknown kind of edit 'weight'.*colour, shape"):
        edits(1, ("colour", "weight"))
    with pytest.raises(ValueError, match="some of colour, .*, got no kinds"):
        edits(1, ())
    for count, start in [(1, -1), (-1, 100), (2, 999_961), (50_000, 1)]:
        with pytest.raises(ValueError, match=f"seeds within 1000000, got {start} . 20·{count}"):
            edits(count, start=start)
    assert edits(0) == []


def test_held_out_images_come_from_held_out_seeds():
    ((image, prompt),) = held_out(1, start=7)
    assert prompt == caption(sample_scene(1_000_007))
    assert np.array_equal(np.asarray(image), render(sample_scene(1_000_007)).image)
    for count, start in [(1, -1), (-1, 0), (2, 999_999)]:
        with pytest.raises(ValueError, match="expected seeds within 1000000"):
            held_out(count, start)


def test_photographs_need_no_download():
    photographs = erddci.photographs()
    assert len(photographs) == 4 and all(each.mode == "RGB" for each in photographs.values())


# The classifier.


def test_answers_are_the_truth():
    assert attributes(PAIR) == {
        "count": "2",
        "floor": "teal",
        "left size": "large",
        "left colour": "red",
        "left material": "matte",
        "left shape": "cone",
        "right size": "small",
        "right colour": "blue",
        "right material": "shiny",
        "right shape": "cube",
    }
    alone = attributes(replace(ALONE, objects=(RIGHT,)))
    assert len(alone) == 6 and alone["count"] == "1" and alone["left shape"] == "cube"


def test_targets_number_the_attributes(drawn):
    numbers = targets(drawn[:50])
    for row, scene in enumerate(drawn[:50]):
        truth = attributes(scene)
        for question, values in QUESTIONS.items():
            number = int(numbers[question][row])
            assert (values[number] == truth[question]) if question in truth else number == -100


def test_an_untrained_reader_answers_what_is_asked():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = AttributeClassifier().eval()
    images = np.stack([render(scene).image for scene in (PAIR, ALONE)])
    read = classifier.classify(images)
    assert read == classifier.classify(images / 255)
    for one in read:
        assert all(answer in QUESTIONS[question] for question, answer in one.items())
        assert len(one) == (10 if one["count"] == "2" else 6)
    with pytest.raises(ValueError, match=r"\[B, 128, 128, 3\], got \(128, 128, 3\)"):
        classifier.classify(images[0])


def test_shapes_and_words_agree():
    assert set(SHAPES) <= set(WORDS) and len(set(WORDS)) == len(WORDS)
