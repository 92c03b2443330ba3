"""The command ``ganeti install``: sets up the OS definition of this installation."""

from __future__ import annotations

import argparse
import os
import sys

from snf_image_host.cli.asking import config_files
from snf_image_host.cli.output import print_error, print_json, print_result
from snf_image_host.configuration.node_config import load_config
from snf_image_host.ganeti import definition


def run_ganeti(arguments: argparse.Namespace) -> int:
    """Write the files and say what to do next."""
    config = load_config(config_files(arguments))
    for warning in config.warnings:
        print_error(f"snf-image: warning: {warning}")
    directory = os.path.abspath(arguments.os_dir)
    written = definition.install(directory, config.variants_dir, interpreter=sys.executable)
    distrusted = definition.find_distrust(sys.executable) or definition.find_distrust(directory)
    if distrusted:
        print_error(f"snf-image: warning: root runs this, and others than root can write to {distrusted}")
    if arguments.json:
        print_json({"result": "success", "exit_code": 0, "directory": directory, "written": list(written)})
    else:
        print_result("\n".join([*written, f"next: `gnt-os diagnose` on the master, {_paths(directory)}"]))
    return 0


def _paths(directory: str) -> str:
    return f"whose OS search path must have {os.path.dirname(directory)}"
