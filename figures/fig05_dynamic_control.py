"""Figure 5: reconstruction and edits by guidance scale, under forms of dynamic control.

The forms are our own formulation; the paper's formula was not available to us.  Reconstruction of
8 held-out scenes against their VAE round trips, medians and quartiles; 16 edits against the VAE
round trips of their true answers, means and standard errors; 10 steps.
"""

from erddci import experiments, plots
from erddci.scenes import examples as data
from erddci.workbook import figures as record

NAME = "fig05_dynamic_control"
NAMES = (*experiments.FORMS, *experiments.OTHERS)
# What is mirrored comes back exactly, so two of its forms are enough for that.
RETURNED = [way for way in NAMES if "D1 + D2" not in way or "default" in way]
EDITED = [way for way in (*experiments.FORMS, "DDIM") if way != "D3 clipped"]


def draw(model, images=8, edits=16, steps=10):
    """Walk held-out scenes back, and edit scenes that served to choose no default."""

    def returned():
        scenes = data.held_out(images)
        rows = experiments.guidance_sweep(model, scenes, steps=steps, ways=RETURNED)
        return rows.drop(
            columns=["seconds_inversion", "seconds_sampling"]
        )  # the machine may be shared

    def edited():
        scenes, scales = data.edits(edits, start=30_000), (1, 3, 5, 7.5, 15)
        return experiments.edit_sweep(model, scenes, scales, steps, EDITED)

    tables = {
        "reconstruction": record.kept(model, NAME, "reconstruction", returned),
        "edits": record.kept(model, NAME, "edits", edited),
    }
    return plots.guidance_sweep(*tables.values()), tables
