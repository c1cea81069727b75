"""Checkpoints: where they lie, and what their files tell before any weight is loaded."""
