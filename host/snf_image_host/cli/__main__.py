"""``python3 -m snf_image_host.cli``."""

from __future__ import annotations

import sys

from snf_image_host.cli import start

sys.exit(start())
