"""`python -m erddci` is `erddci`, as `accelerate launch -m` needs it."""

from erddci.cli import app

app()
