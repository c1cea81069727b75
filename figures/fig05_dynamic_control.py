"""Figure 5: reconstruction and edits by guidance scale, under forms of dynamic control.

The forms are our own formulation; the paper's formula was not available to us.  Reconstruction of
8 held-out scenes against their VAE round trips, medians and quartiles; 16 edits against the VAE
round trips of their true answers, means and standard errors; 10 steps.
"""

from erddci import experiments, plots
from erddci.scenes.examples import edits, held_out
from erddci.scenes.scene import FirstSeed
from erddci.workbook.figures import cached_table

NAME = "fig05_dynamic_control"
# What inverts guided comes back exactly, so two of its forms are enough for that.
RECONSTRUCTED = [
    name for name in experiments.SETTINGS if "D1 + D2" not in name or "default" in name
]
EDITED = [name for name in (*experiments.FORMS, "DDIM") if name != "D3 clipped"]


def draw(model, images=8, scenes=16, steps=10):
    """Reconstruct held-out scenes, and edit scenes that served to choose no default."""

    def reconstruction():
        rows = experiments.guidance_sweep(
            model, held_out(images), steps=steps, settings=RECONSTRUCTED
        )
        # The machine may be shared.
        return rows.drop(columns=["seconds_inversion", "seconds_sampling"])

    def edited():
        drawn = edits(scenes, start=FirstSeed.DYNAMIC_CONTROL)
        return experiments.edit_sweep(model, drawn, (1, 3, 5, 7.5, 15), steps, EDITED)

    tables = {
        "reconstruction": cached_table(model, NAME, "reconstruction", reconstruction),
        "edits": cached_table(model, NAME, "edits", edited),
    }
    return plots.guidance_sweep(*tables.values()), tables
