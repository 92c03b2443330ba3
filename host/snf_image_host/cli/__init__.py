"""The command ``snf-image``."""

from snf_image_host.cli.main import main

__all__ = ["main"]
