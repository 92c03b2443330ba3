"""The commands ``helper build``, ``helper info``, ``helper verify`` and ``helper warm``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import time

from snf_image_host import helper_image
from snf_image_host.cli.asking import config_files, overrides
from snf_image_host.cli.output import print_error, print_json, print_result
from snf_image_host.cli.progress import make_sinks
from snf_image_host.cli.session import Session
from snf_image_host.configuration.node_config import load_config
from snf_image_host.errors import NodeError
from snf_image_host.helper_image import HelperImage
from snf_image_host.planning.helper_settings import helper_settings
from snf_image_host.reporter import Reporter
from snf_image_host.vm.warm import make_state


def run_helper(arguments: argparse.Namespace, session: Session) -> int:
    """One of them; the directory is ``--helper-dir``, else HELPER_DIR."""
    if arguments.action == "build":
        return _build(arguments)
    if arguments.action == "warm":
        return _warm(arguments, as_json=session.as_json)
    directory = _directory(arguments)
    if arguments.action == "verify":
        return _verify(directory, as_json=session.as_json)
    return _info(directory, as_json=session.as_json)


def _directory(arguments: argparse.Namespace) -> str:
    if arguments.helper_dir:
        return str(os.path.abspath(arguments.helper_dir))
    config = load_config(config_files(arguments))
    for warning in config.warnings:
        print_error(f"snf-image: warning: {warning}")
    return config.helper_dir


def _build(arguments: argparse.Namespace) -> int:
    output = os.path.abspath(arguments.output) if arguments.output else _directory(arguments)
    helper_image.build(
        output=output,
        source=os.path.abspath(arguments.source) if arguments.source else None,
        engine=arguments.engine,
        base=arguments.base,
        refresh=arguments.refresh,
        tasks=os.path.abspath(arguments.tasks) if arguments.tasks else None,
    )
    return _info(output, as_json=arguments.json)


def _verify(directory: str, *, as_json: bool) -> int:
    problems = helper_image.verify(directory)
    if problems:
        raise NodeError(*problems, hint="build it with `snf-image helper build`, or install it again")
    if as_json:
        print_json({"result": "success", "exit_code": 0, "directory": directory})
    else:
        print_result(f"{directory}: whole, every digest is right")
    return 0


def _warm(arguments: argparse.Namespace, *, as_json: bool) -> int:
    """Make the saved state (`helper warm`)."""
    config = load_config(config_files(arguments))
    settings = helper_settings(config, overrides(arguments))
    image = helper_image.load(settings.directory)
    reporter = Reporter(*make_sinks(arguments))
    with reporter.opened():
        begun = time.monotonic()
        path = make_state(settings, image, reporter, again=arguments.again)
    seconds = round(time.monotonic() - begun, 3)
    if as_json:
        print_json({"result": "success", "exit_code": 0, "state": path, "seconds": seconds})
    elif path is None:
        print_result("somebody else is just making it")
    else:
        print_result(f"{path}: {os.path.getsize(path) / 2**20:.0f} MiB, {seconds:.1f} s")
    return 0


def _info(directory: str, *, as_json: bool) -> int:
    image = helper_image.load(directory)
    if as_json:
        print_json(dataclasses.asdict(image))
    else:
        print_result(_as_text(image))
    return 0


def _as_text(image: HelperImage) -> str:
    files = (
        f"  {file.name:<15} {file.size / 2**20:8.1f} MiB  sha256 {file.sha256}" for file in image.artefacts
    )
    lines = [
        f"directory         {image.directory}",
        f"build             {image.build}",
        f"contract version  {image.contract_version}",
        f"packages          {len(image.packages)} (--json lists them)",
        *([f"base              {image.base.image} {image.base.digest}".rstrip()] if image.base else []),
        *([f"tasks             {', '.join(image.tasks)}"] if image.tasks else []),
        "files",
        *files,
    ]
    return "\n".join(lines)
