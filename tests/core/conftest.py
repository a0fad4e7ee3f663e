"""Hypothesis for every run: the same examples each time, and no deadline on a busy machine."""

from hypothesis import settings

settings.register_profile("same-every-time", derandomize=True, deadline=None)
settings.load_profile("same-every-time")
