"""``python3 -m snf_image_host.ganeti SCRIPT``: what the scripts of the OS definition run."""

from __future__ import annotations

import sys

from snf_image_host.ganeti.scripts import main

sys.exit(main(sys.argv[1:]))
