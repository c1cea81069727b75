"""The editing studio: what it computes and says, what it keeps, and how it stops and fails."""

import io
import re
import tempfile
import threading
import warnings
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

import erddci
from erddci import EditConfig, GuidanceSchedule
from erddci.metrics import psnr
from erddci.widgets import session, studio
from erddci.widgets.code import as_code
from erddci.widgets.notes import collected_warnings

resizes = pytest.mark.filterwarnings("ignore::erddci.images.ImageChanged")


@pytest.fixture(scope="module")
def images(tiny):
    return session.example_inputs(tiny)


@pytest.fixture(scope="module")
def settings(images):
    image = images["scene 1: colour"]
    config = EditConfig(control="refine", steps=5)
    return session.StudioSettings(image, image.source, image.target, config)


def configured(settings, **fields):
    return replace(settings, config=replace(settings.config, **fields))


def view_of(model, settings):
    return session.edit_view(model, settings, session.invert_image(model, settings.inversion))


@pytest.fixture
def opened(tiny, images, monkeypatch):
    """A studio at rest, whose inversions are recorded in `inversions`."""
    inversions = []

    def invert_image(model, settings):
        inversions.append(settings)
        return session.invert_image(model, settings)

    monkeypatch.setattr(studio, "invert_image", invert_image)
    monkeypatch.setattr(studio, "example_inputs", lambda _: images)
    opened = studio.editing_studio(tiny)
    opened.wait()
    opened.inversions = inversions
    return opened


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
    view = view_of(tiny, settings)
    titles = ["input", "reconstruction", "edit", "true edit", "difference × 2"]
    assert list(view.images) == titles
    truth = tiny.decode(tiny.encode(settings.image.truth))[0]
    distance = psnr(truth, view.images["edit"])
    assert f"Edit: {distance:.1f} dB to the VAE round trip of the true edit." in view.summary
    assert re.search(r"Reconstruction: (1\d\d\.\d|∞) dB to the VAE round trip, ", view.summary)
    floor = psnr(tiny.to_array(settings.image.image), view.images["reconstruction"])
    assert f"{floor:.1f} dB to the input image (VAE floor: {floor:.1f} dB)." in view.summary
    # 2N and a guided step or two to invert; source and target, guided where the inversion was.
    assert "NFE: 12 for the inversion, 12 for the edit." in view.summary
    assert "Note: the image was resized from 128 × 128 to 16 × 16." in view.summary
    assert list(view.maps) == ["“green” (source)", "“red” (target)"]
    assert {each.shape for each in view.maps.values()} == {(16, 16, 3)}


def test_view_without_attention_maps_says_why(tiny, settings):
    view = view_of(tiny, configured(settings, control="none", method="ddim"))
    assert not view.maps and "No attention maps: only attention control" in view.summary
    costs = "5 for the inversion, 7 for the edit, 5 for the reconstruction beside it"
    assert f"NFE: {costs}." in view.summary
    assert "∞" not in view.summary and "Both prompts are the same" not in view.summary


def test_another_target_has_no_true_edit(tiny, settings):
    view = view_of(tiny, replace(settings, target="a cube"))
    assert "true edit" not in view.images
    assert "no true edit is known for this image and target prompt" in view.summary


def test_overlay_is_grey_without_attention_and_coloured_at_its_maximum():
    image = np.ones((8, 8, 3), np.float32)
    attention = np.zeros((4, 4), np.float32)
    attention[0, 0] = 0.2
    shown = session.overlay(image, attention)
    np.testing.assert_allclose(shown[-1, -1], 0.6, atol=1e-6)
    bright = np.array([0.988362, 0.998364, 0.644924])  # the end of matplotlib's inferno
    np.testing.assert_allclose(shown[0, 0], 0.25 * 0.6 + 0.75 * bright, atol=1e-5)


def test_warnings_while_computing_become_notes(opened):
    for threshold in (0.3, 0.5):  # not the first time alone
        choose(opened, cross_until=0.0, self_until=0.0, threshold=threshold)
        assert "\nNote: PromptToPrompt changed no attention: raise" in opened.message.value


def test_notes_of_the_inversion_are_shown_with_each_edit(tiny, settings, monkeypatch):
    def invert(*arguments):
        warnings.warn("the inversion is odd", stacklevel=1)
        return real(*arguments)

    real = EditConfig.invert
    monkeypatch.setattr(EditConfig, "invert", invert)
    inverted = session.invert_image(tiny, settings.inversion)
    for target in (settings.target, "a cube"):
        view = session.edit_view(tiny, replace(settings, target=target), inverted)
        assert view.summary.endswith("Note: the inversion is odd.")


def test_warnings_of_other_threads_are_not_collected():
    def other():
        with collected_warnings() as notes:
            entered.set()
            assert leave.wait(60)
            warnings.warn("of the thread", stacklevel=1)
        collected.extend(notes)

    entered, leave, collected = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=other)
    with pytest.warns(UserWarning, match="of the cell"):
        thread.start()
        assert entered.wait(60)
        warnings.warn("of the cell", stacklevel=1)
        leave.set()
        thread.join()
    assert collected == ["of the thread"]
    with pytest.warns(UserWarning, match="afterwards"):
        warnings.warn("afterwards", stacklevel=1)


@resizes
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"blend": True, "threshold": 0.5, "strength": 0.6},
        {"control": "none", "blend": True},
        {"schedule": None, "control": "plug-and-play", "self_until": 0.6, "guidance_scale": 3.0},
        {"schedule": GuidanceSchedule(power=2.0, anchor=0.1), "timestep": "current"},
        {"method": "ddim", "control": "replace", "cross_until": 0.8},
        {"method": "direct", "control": "none", "schedule": None},
        {"method": "edict", "control": "masactrl", "strength": 0.8},
        {"method": "sdedit", "control": "none", "strength": 0.6},
    ],
)
def test_code_makes_the_same_edit(tiny, settings, fields):
    settings = configured(settings, **fields)
    code = as_code(tiny, settings)
    made = {}
    exec(code, made)
    config, path = settings.config, session.invert_image(tiny, settings.inversion).path
    edited = config.edit(tiny, path, [settings.source], [settings.target])
    assert made["config"] == config
    assert torch.equal(made["edited"].x0, edited.x0)
    assert made["image"].shape == (16, 16, 3)
    assert max(map(len, code.splitlines())) < 100


def test_code_says_no_more_than_it_must(tiny, settings):
    code = as_code(tiny, settings)
    assert 'config = erddci.EditConfig(control="refine", steps=5)\n' in code
    assert len(code.splitlines()) == 11
    settings = replace(settings, source='a "red" cube\\', target="été\n")
    made = {}
    lines = as_code(tiny, settings).splitlines()
    exec("\n".join(line for line in lines if line.startswith(("source", "target"))), made)
    assert (made["source"], made["target"]) == (settings.source, settings.target)


@resizes
def test_code_names_model_and_image(tiny, settings, images):
    half = type("Half", (), {"name": "some/model@1", "dtype": torch.float16})
    code = as_code(half, settings)
    assert code.startswith("import torch\nimport erddci\n")
    assert 'erddci.load("some/model", dtype=torch.float16)' in code
    embedded = type("Embedded", (), {"name": "scenes@1", "dtype": torch.float32})
    assert "erddci.load()\n" in as_code(embedded, settings)
    for label in ("scene 1: colour", "photograph: coffee"):
        image = images[label]
        found = eval(image.code, {"erddci": erddci})
        assert np.array_equal(tiny.to_array(found), np.asarray(image.image, np.float32) / 255)
        assert bool(image.truth) == label.startswith("scene")


def test_inverts_once_while_only_the_edit_changes(opened):
    assert len(opened.inversions) == 1
    choose(opened, target="a cube", control="replace", cross_until=0.6, self_until=0.3)
    choose(opened, blend=True, threshold=0.5, strength=0.5, control="none")
    assert len(opened.inversions) == 1
    choose(opened, guidance_scale=5.0)  # its schedule guides the inversion too
    assert len(opened.inversions) == 2
    choose(opened, schedule="constant")  # then the dual chain is inverted at w = 1
    assert len(opened.inversions) == 3
    choose(opened, guidance_scale=3.0)
    assert len(opened.inversions) == 3
    choose(opened, method="ddim", steps=5, guidance_scale=2.0, schedule="dynamic")
    assert len(opened.inversions) == 5
    assert opened.status.value == "done" and opened.progress.value == 1


def test_image_brings_its_prompts_and_one_run(opened):
    image = opened.controls["image"]
    second = dict(image.options)["scene 2: shape"]
    choose(opened, image=second)
    assert (opened.settings.source, opened.settings.target) == (second.source, second.target)
    assert len(opened.inversions) == 2
    choose(opened, image=dict(image.options)["photograph: coffee"])
    assert opened.settings.source == "" and "cropped to its centre" in opened.message.value
    assert "Both prompts are the same" in opened.message.value
    assert "attention" not in opened.message.value  # there are no words to show maps of
    assert len(image.options) == 12


def test_controls_are_the_fields_of_an_edit_config(opened):
    names = {field.name for field in fields(EditConfig)} - {"evaluate_at", "timestep"}
    assert set(opened.controls) == names | {"image", "source", "target"}
    assert opened.settings.config == EditConfig(control="refine", steps=20)
    choose(opened, schedule="constant", strength=0.95)
    assert opened.settings.config == EditConfig(
        control="refine", steps=20, schedule=None, strength=0.95
    )


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"method": "ddim", "control": "none", "strength": 0.6},
        {"method": "direct", "schedule": "constant"},
        {"method": "edict", "blend": True},
        {"control": "none"},
        {"method": "sdedit"},
        {"method": "sdedit", "control": "none"},
    ],
)
def test_progress_bar_fits_what_the_network_is_evaluated(opened, values):
    reports = []

    def report(status, max_nfe=1.0):
        reports.append((status, max_nfe, opened._model.nfe))
        real(status, max_nfe)

    real, opened._report = opened._report, report
    for name, value in values.items():
        opened.controls[name].value = value
    opened.run_button.click()
    opened.wait()
    opened._views.cache_clear()
    opened._inverted.cache_clear()
    reports.clear()
    opened.run_button.click()
    opened.wait()
    statuses, limits, counts = zip(*reports, strict=True)
    assert statuses == ("inverting …", "editing …", "done")
    for limit, before, after in zip(limits, counts, counts[1:], strict=False):
        assert limit / 2 <= after - before <= limit


def test_stop_ends_a_run_and_leaves_the_last_result(opened, gate):
    close, reached, free = gate
    before, said = opened.gallery.value, opened.message.value
    close()
    opened.controls["strength"].value = 0.5
    assert (
        reached.wait(60) and not opened.stop_button.disabled and opened.status.value == "editing …"
    )
    opened.stop_button.click()
    free.set()
    opened.wait()
    assert (opened.gallery.value, opened.message.value) == (before, said)
    assert opened.status.value.startswith("stopped") and opened.stop_button.disabled
    opened.run_button.click()
    opened.wait()
    assert opened.status.value == "done" and opened.gallery.value != before


def test_newer_settings_end_an_older_run(opened, gate):
    close, reached, free = gate
    close()
    opened.controls["strength"].value = 0.5
    assert reached.wait(60)
    opened.controls["target"].value = "a cube"
    opened.controls["strength"].value = 0.8
    free.set()
    opened.wait()
    assert opened.status.value == "done"
    assert "NFE: 48 for the inversion, 36 for the edit." in opened.message.value
    assert opened._views.cache_info().currsize == 2


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
    before = opened.gallery.value
    choose(opened, target="a <b>dog</b>")
    assert "ValueError: " in opened.message.value and not opened.gallery.value
    assert "does not know all words of “a &lt;b&gt;dog&lt;/b&gt;”" in opened.message.value
    choose(opened, target=opened.settings.image.target)
    assert opened.gallery.value == before


def test_only_controls_that_matter_are_enabled(opened):
    control = opened.controls
    assert control["threshold"].disabled and not control["cross_until"].disabled
    choose(opened, control="masactrl", blend=True)
    assert control["cross_until"].disabled and control["self_until"].disabled
    assert not control["threshold"].disabled
    late = [each for each in control.values() if each.has_trait("continuous_update")]
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
    assert 'x = model.encode("mine.png")\n' in opened.code.value
    assert "Note: mine.png was cropped to its centre and resized" in opened.message.value
    assert len(opened.inversions) == 2


def test_upload_that_is_no_image(opened):
    upload(opened, "notes.png", b"no image")
    said = "ValueError: notes.png is not an image that can be read (unknown format): expected "
    assert said in opened.message.value
    # Where the file lay while it was read is no concern of who uploaded it.
    assert tempfile.gettempdir() not in opened.message.value
    assert len(opened.controls["image"].options) == 12
