"""What holds for every test."""

from hypothesis import settings

# A busy machine is slow: that says nothing about what a property test looks for.
settings.register_profile("snf-image", deadline=None)
settings.load_profile("snf-image")
