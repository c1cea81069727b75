"""Figure 2: the two chains of Dual-Chain Inversion, drawn from the order of the code."""

from erddci import experiments, plots


def draw(model, steps=3):
    """Watch a short run of `dual_chain`; which model it is makes no difference."""
    order = experiments.step_order(steps)
    return plots.dual_chain(order), {"order": order}
