"""The editing studio: what it computes and says, what it keeps, and how it stops and fails."""

import io
import re
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

import erddci
from erddci.metrics import psnr
from erddci.widgets import session as view
from erddci.widgets import studio

pytestmark = pytest.mark.filterwarnings("ignore::erddci.images.ImageChanged")


@pytest.fixture(scope="module")
def images(tiny):
    return view.images_for(tiny)


@pytest.fixture(scope="module")
def settings(images):
    given = images["scene 1: colour"]
    return view.Settings(given, given.source, given.target, steps=5)


@pytest.fixture
def opened(tiny, images, monkeypatch):
    """A studio at rest, whose inversions are counted in `begun`."""
    begun = []

    def begin(model, settings):
        begun.append(settings)
        return real(model, settings)

    real = view.begin
    monkeypatch.setattr(studio, "begin", begin)
    monkeypatch.setattr(studio, "images_for", lambda _: images)
    found = studio.editing_studio(tiny)
    found.wait()
    found.begun = begun
    return found


@pytest.fixture
def gate(opened):
    """Holds the studio's network at its next call, until it is let go."""
    reached, free = threading.Event(), threading.Event()

    def hold(*_):
        reached.set()
        assert free.wait(60)

    def close():
        reached.clear()
        handle.append(opened._model.unet.register_forward_pre_hook(hold, prepend=True))

    handle = []
    yield close, reached, free
    free.set()
    opened.wait()
    handle[0].remove()


def choose(opened, **values):
    for name, value in values.items():
        opened.controls[name].value = value
        opened.wait()


def test_view_shows_and_says_what_came_of_it(tiny, settings):
    shown = view.studio_view(tiny, settings)
    titles = ["input", "reconstruction", "edit", "true edit", "difference × 2"]
    assert list(shown.images) == titles
    truth = tiny.decode(tiny.encode(settings.image.truth))[0]
    near = psnr(truth, shown.images["edit"])
    assert f"Edit: {near:.1f} dB to the VAE round trip of the true edit." in shown.words
    assert re.search(r"Reconstruction: (1\d\d\.\d|∞) dB to the VAE round trip, ", shown.words)
    floor = psnr(tiny.to_array(settings.image.image), shown.images["reconstruction"])
    assert f"{floor:.1f} dB to the input image (VAE floor: {floor:.1f} dB)." in shown.words
    assert "Network rows: 12 to noise, 12 back." in shown.words
    assert "Note: the image was resized from 128 × 128 to 16 × 16." in shown.words
    assert list(shown.maps) == ["“green” (source)", "“red” (target)"]
    assert {each.shape for each in shown.maps.values()} == {(16, 16, 3)}


def test_view_without_attention_maps_says_why(tiny, settings):
    shown = view.studio_view(tiny, replace(settings, control="none", method="ddim"))
    assert not shown.maps and "No attention maps: nothing looks at attention" in shown.words
    assert "Network rows: 5 to noise, 12 back." in shown.words  # the source's way back too
    assert "∞" not in shown.words and "prompts are alike" not in shown.words


def test_another_target_has_no_true_answer(tiny, settings):
    shown = view.studio_view(tiny, replace(settings, target="a cube"))
    assert "true edit" not in shown.images
    assert "no true answer is known for this image and target prompt" in shown.words


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"blend": True, "threshold": 0.5, "strength": 0.6},
        {"control": "none", "blend": True},
        {"schedule": False, "control": "plug-and-play", "self_until": 0.6, "w": 3.0},
        {"method": "ddim", "control": "replace", "cross_until": 0.8},
        {"method": "direct", "control": "none", "schedule": False},
        {"method": "edict", "control": "masactrl", "strength": 0.8},
    ],
)
def test_code_makes_the_same_edit(tiny, settings, chosen):
    chosen = replace(settings, **chosen)
    made = {}
    exec(view.as_code(tiny, chosen), made)
    path = view.begin(tiny, chosen.start).path
    assert torch.equal(made["edited"].x0, view.edit_as(tiny, chosen, path).x0)
    assert made["image"].shape == (16, 16, 3)


def test_code_names_model_and_image(tiny, settings, images):
    half = type("Half", (), {"name": "some/model@1", "dtype": torch.float16})
    code = view.as_code(half, settings)
    assert code.startswith("import torch\nimport erddci\n")
    assert 'erddci.load("some/model", dtype=torch.float16)' in code
    embedded = type("Embedded", (), {"name": "scenes@1", "dtype": torch.float32})
    assert "erddci.load()\n" in view.as_code(embedded, settings)
    for label in ("scene 1: colour", "photograph: coffee"):
        given = images[label]
        found = eval(given.code, {"erddci": erddci})
        assert np.array_equal(tiny.to_array(found), np.asarray(given.image, np.float32) / 255)
        assert bool(given.truth) == label.startswith("scene")


def test_inverts_once_while_only_the_edit_changes(opened):
    assert len(opened.begun) == 1
    choose(opened, target="a cube", control="replace", cross_until=0.6, self_until=0.3)
    choose(opened, blend=True, threshold=0.5, strength=0.5, control="none")
    assert len(opened.begun) == 1
    choose(opened, w=5.0)  # mirrored: the dual chain climbs under w
    assert len(opened.begun) == 2
    choose(opened, schedule=False)
    assert len(opened.begun) == 3
    choose(opened, w=3.0)
    assert len(opened.begun) == 3
    choose(opened, method="ddim", steps=5, w=2.0, schedule=True)
    assert len(opened.begun) == 5
    assert "done" in opened.doing.value and opened.bar.value == 1


def test_image_brings_its_prompts_and_one_run(opened):
    image = opened.controls["image"]
    second = dict(image.options)["scene 2: shape"]
    choose(opened, image=second)
    assert (opened.settings.source, opened.settings.target) == (second.source, second.target)
    assert len(opened.begun) == 2
    choose(opened, image=dict(image.options)["photograph: coffee"])
    assert opened.settings.source == "" and "cropped to its centre" in opened.words.value
    assert "Both prompts are alike" in opened.words.value
    assert len(image.options) == 12


def test_stop_ends_a_run_and_leaves_the_last_result(opened, gate):
    close, reached, free = gate
    before, said = opened.shown.value, opened.words.value
    close()
    opened.controls["strength"].value = 0.5
    assert reached.wait(60) and not opened.stop.disabled and opened.doing.value == "editing …"
    opened.stop.click()
    free.set()
    opened.wait()
    assert (opened.shown.value, opened.words.value) == (before, said)
    assert opened.doing.value.startswith("stopped") and opened.stop.disabled
    opened.again.click()
    opened.wait()
    assert opened.doing.value == "done" and opened.shown.value != before


def test_newer_settings_end_an_older_run(opened, gate):
    close, reached, free = gate
    close()
    opened.controls["strength"].value = 0.5
    assert reached.wait(60)
    opened.controls["target"].value = "a cube"
    opened.controls["strength"].value = 0.8
    free.set()
    opened.wait()
    assert opened.doing.value == "done"
    assert "Network rows: 48 to noise, 36 back." in opened.words.value
    assert opened._seen.cache_info().currsize == 2


def test_model_stays_free_while_the_studio_runs(tiny, opened, gate):
    close, reached, free = gate
    close()
    opened.controls["strength"].value = 0.5
    assert reached.wait(60)
    ours, theirs = tiny.unet, opened._model.unet
    assert {type(each).__name__ for each in theirs.attn_processors.values()} == {
        "ControlAttnProcessor"
    }
    assert "ControlAttnProcessor" not in {
        type(each).__name__ for each in ours.attn_processors.values()
    }
    assert ours.conv_in.weight is theirs.conv_in.weight
    x = torch.zeros(1, 4, 8, 8, dtype=torch.float64)
    assert tiny(x, torch.tensor(1), tiny.condition("")).isfinite().all()


def test_says_what_is_wrong_and_goes_on(opened):
    before = opened.shown.value
    choose(opened, target="a <b>dog</b>")
    assert "ValueError: " in opened.words.value and not opened.shown.value
    assert "does not know all words of “a &lt;b&gt;dog&lt;/b&gt;”" in opened.words.value
    choose(opened, target=opened.settings.image.target)
    assert opened.shown.value == before
    choose(opened, cross_until=0.0, self_until=0.0)
    assert "changed no attention" in opened.words.value


def test_only_what_has_a_say_can_be_moved(opened):
    control = opened.controls
    assert control["threshold"].disabled and not control["cross_until"].disabled
    choose(opened, control="masactrl", blend=True)
    assert control["cross_until"].disabled and control["self_until"].disabled
    assert not control["threshold"].disabled
    late = [each for each in control.values() if hasattr(each, "continuous_update")]
    assert len(late) == 8 and not any(each.continuous_update for each in late)


def upload(opened, name, content):
    file = {"name": name, "type": "image/png", "size": len(content)}
    file["last_modified"] = datetime(2025, 1, 1, tzinfo=UTC)
    opened.upload.value = [{**file, "content": memoryview(content)}]
    opened.wait()


def test_uploaded_image_is_edited(opened, tiny):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(buffer, "png")
    upload(opened, "mine.png", buffer.getvalue())
    assert opened.controls["image"].label == "yours: mine.png"
    assert 'x = model.encode("mine.png")' in opened.code.value
    assert "Note: mine.png was cropped to its centre and resized" in opened.words.value
    assert len(opened.begun) == 2


def test_upload_that_is_no_image(opened):
    upload(opened, "notes.png", b"no image")
    said = "ValueError: notes.png is not an image that can be read (unknown format): expected PNG"
    assert said in opened.words.value
    # Where the file lay while it was read is no concern of who uploaded it.
    assert tempfile.gettempdir() not in opened.words.value
    assert len(opened.controls["image"].options) == 12
