"""Scenes with named things: sheet, cards, masks, captions, splits and edits."""

import hashlib

import numpy as np
import pytest
from skimage.morphology import dilation, footprint_rectangle

from erddci.scenes.captions import LENGTH, tokenizer
from erddci.scenes.examples import NAMED_KINDS, edits
from erddci.scenes.render import render
from erddci.scenes.scene import (
    HELD_OUT_SEEDS,
    SHAPES,
    TRAIN_SEEDS,
    WORDS,
    WORLD_WORDS,
    Scene,
    SceneObject,
    caption,
    change,
    held_out_pair,
    sample_named_scene,
    sample_scene,
    subjects,
    swap,
)
from erddci.scenes.things import CELL, FACES, GROUPS, NAMES, NamedObject, picture
from erddci.training.rendered import shares

CAT = NamedObject("large", "cat", x=-0.8, z=0.1)
CUBE = SceneObject("small", "red", "matte", "cube", x=0.8, z=-0.2, yaw=0.5)
PAIR = Scene((CAT, CUBE), "teal", light=0.4)


@pytest.fixture(scope="module")
def sampled():
    return [sample_named_scene(seed) for seed in HELD_OUT_SEEDS[:500]]


def test_scenes_of_shapes_are_to_the_byte_what_they_were():
    digest = hashlib.sha256()
    for seed in [*HELD_OUT_SEEDS[:20], *TRAIN_SEEDS[:5]]:
        scene = sample_scene(seed)
        rendering = render(scene)
        digest.update(rendering.image.tobytes() + rendering.masks.tobytes())
        digest.update(caption(scene).encode())
    assert digest.hexdigest() == "dad9447eb5a3b9f3eac6f5e0501e4cea6f45b1e1093e357364735f6d0a4dc116"


def test_every_thing_stands_on_the_last_row_of_its_cell_and_fills_it():
    assert 150 <= len(NAMES) <= 190 and len(set(NAMES)) == len(NAMES)
    assert 8 <= len(FACES) <= 12 and set(GROUPS.values()) >= {"animal", "food", "vehicle"}
    for name in NAMES:
        opaque = picture(name)[..., 3] > 127
        assert opaque.shape == (CELL, CELL) and opaque[-2:].any()
        rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) >= CELL - 6, name
        assert abs(columns[0] + columns[-1] - CELL + 1) <= 6, name  # in the middle


def test_an_unknown_thing_is_refused():
    with pytest.raises(ValueError, match="unknown thing 'unicycle': expected one of cat, dog"):
        picture("unicycle")


def test_half_of_the_things_have_names_and_a_third_of_the_scenes_none(sampled):
    things = [thing for scene in sampled for thing in scene.objects]
    named = [isinstance(thing, NamedObject) for thing in things]
    assert 0.45 < np.mean(named) < 0.55
    plain = [all(isinstance(t, SceneObject) for t in scene.objects) for scene in sampled]
    assert 0.27 < np.mean(plain) < 0.41
    assert len({thing.name for thing in things if isinstance(thing, NamedObject)}) > 100


def test_no_training_scene_shows_a_pair_that_is_held_out(sampled):
    trained = [sample_named_scene(seed) for seed in TRAIN_SEEDS[:500]]
    assert not any(held_out_pair(*s.objects) for s in trained if len(s.objects) == 2)
    assert any(held_out_pair(*s.objects) for s in sampled if len(s.objects) == 2)
    assert held_out_pair(CAT, CUBE) == held_out_pair(CUBE, CAT)


def test_a_mask_is_where_the_picture_changes_when_a_thing_goes():
    both, alone = render(PAIR), render(Scene((CUBE,), "teal", light=0.4))
    differs = (both.image != alone.image).any(-1)
    cat = both.masks[0]
    assert 0.05 < cat.mean() < 0.25
    assert differs[cat].mean() > 0.99
    # What else differs is half-covered edge, or shadow, which is only ever darker.
    beyond = ~dilation(cat, footprint_rectangle((7, 7)))
    assert (both.image[beyond] <= alone.image[beyond]).all()
    assert not differs[: np.flatnonzero(cat.any(1))[0] - 3].any()
    np.testing.assert_array_equal(both.masks[1] & ~cat, alone.masks[0] & ~cat)


def test_a_large_thing_is_about_50_pixels_high_and_a_small_one_30():
    for size, low, high in (("small", 30, 40), ("large", 48, 64)):
        scene = Scene((NamedObject(size, "robot", 0, 0),), "grey", light=0, field_of_view=0.285)
        rows = np.flatnonzero(render(scene).masks[0].any(1))
        assert low < np.ptp(rows) < high


def test_a_nearer_thing_covers_a_farther_one():
    behind = NamedObject("large", "house", -0.3, -0.5)
    before = NamedObject("large", "tree", 0.3, 0.5)
    masks = render(Scene((behind, before), "grey", light=0)).masks
    alone = render(Scene((before,), "grey", light=0)).masks[0]
    assert not (masks[0] & masks[1]).any()
    np.testing.assert_array_equal(masks[1], alone)


def test_a_shadow_falls_away_from_the_light():
    floor = Scene((NamedObject("large", "robot", 0, 0),), "white", light=0.9)
    dark = render(floor).image.astype(int).sum(-1)
    mirrored = render(Scene(floor.objects, "white", light=-0.9)).image.astype(int).sum(-1)
    assert dark[50:90, :45].mean() < mirrored[50:90, :45].mean()  # the light comes from the right


def test_every_caption_is_known_words_that_each_speak_of_something(sampled):
    words = tokenizer(WORLD_WORDS)
    assert list(WORLD_WORDS[: len(WORDS)]) == WORDS
    assert all(len(words.tokenize(word)) == 1 for word in WORLD_WORDS)
    for scene in sampled[:100]:
        for brief in (False, True):
            said = caption(scene, brief).split()
            assert len(words(caption(scene, brief)).input_ids) == len(said) + 2 <= LENGTH
            spoken = subjects(scene, brief)
            assert len(spoken) == len(said)
            floor = len(scene.objects)
            assert [w for w, s in zip(said, spoken, strict=True) if s == floor] == [
                scene.floor,
                "floor",
            ]
            for index, thing in enumerate(scene.objects):
                own = [w for w, s in zip(said, spoken, strict=True) if s == index]
                assert set(own) <= set(str(thing).split()) and own[-1] in str(thing)


def test_captions_name_things_with_their_size_alone():
    assert caption(PAIR) == "a large cat left of a small red matte cube on a teal floor"
    assert caption(PAIR, brief=True) == "a cat left of a red cube on a teal floor"
    sad = Scene((NamedObject("small", "sad face", 0, 0),), "navy", light=0)
    assert caption(sad) == "a small sad face on a navy floor"


def test_changing_a_name_or_swapping_sides_leaves_the_rest():
    dog = change(PAIR, 0, name="dog")
    assert dog.objects == (NamedObject("large", "dog", CAT.x, CAT.z), CUBE)
    swapped = swap(PAIR)
    assert [t.x for t in swapped.objects] == [CAT.x, CUBE.x]
    assert swapped.objects[1] == NamedObject("large", "cat", CUBE.x, CUBE.z)
    assert swap(swapped) == PAIR
    with pytest.raises(ValueError, match="unknown attribute 'colour': expected one of size, name"):
        change(PAIR, 0, colour="red")
    with pytest.raises(ValueError, match="expected a scene of two objects"):
        swap(Scene((CAT,), "teal", light=0))


def test_edits_change_only_what_they_say():
    found = edits(22, NAMED_KINDS, named=True)
    assert [example.name for example in found[:11]] == list(NAMED_KINDS)
    for example in found:
        before, after = example.scene, example.truth_scene
        assert example.source != example.target
        assert (before.light, before.field_of_view) == (after.light, after.field_of_view)
        names = [
            (a.name, b.name)
            for a, b in zip(before.objects, after.objects, strict=False)
            if isinstance(a, NamedObject) and isinstance(b, NamedObject)
        ]
        if example.name in ("name", "expression"):
            ((old, new),) = [pair for pair in names if pair[0] != pair[1]]
            assert GROUPS[old] == GROUPS[new]
            assert (old in FACES) == (example.name == "expression")
        elif example.name in ("colour", "material", "size", "floor", "shape", "replace"):
            assert all(old == new for old, new in names)


def test_edits_of_named_things_are_asked_for():
    with pytest.raises(ValueError, match="unknown kind of edit 'swap'"):
        edits(1, ("swap",))
    assert not any(isinstance(t, NamedObject) for e in edits(8) for t in e.scene.objects)


def test_shares_of_a_cell_add_up_to_the_whole_of_it(sampled):
    for scene in sampled[:10]:
        regions = shares(render(scene)).astype(int)
        assert np.abs(regions.sum(0) - 255).max() <= 2
        assert regions[len(scene.objects)].mean() > 80


def test_shapes_come_after_names_among_nouns():
    assert not set(SHAPES) & set(NAMES)
