"""What holds for every test."""

from hypothesis import settings

# A deadline for each example would fail on a machine that is busy with something else.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
