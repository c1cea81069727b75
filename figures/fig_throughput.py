"""Images per second of a dual-chain reconstruction, by batch size and by processes.

w = 1, 20 steps. The dotted line is the ideal: as many times the first value as there are images
in a batch, or processes. Times are of the machine that drew it.
"""

from erddci import experiments, plots


def draw(model, steps=20):
    """Time the embedded model, or another one, here and now."""
    table = experiments.throughput(model, steps=steps)
    return plots.throughput(table), {"images": table}
