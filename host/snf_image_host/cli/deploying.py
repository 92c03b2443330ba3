"""The commands that run the helper on a disk: deploy, customize, inspect."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator

from snf_image_host.cli.asking import build_request, config_files
from snf_image_host.cli.output import print_json, print_result
from snf_image_host.cli.progress import make_sinks
from snf_image_host.cli.session import Session
from snf_image_host.configuration.node_config import load_config
from snf_image_host.deployment import Deployment
from snf_image_host.errors import SnfImageError
from snf_image_host.inspection_report import InspectionReport
from snf_image_host.parameters.checks import merge_parameters
from snf_image_host.parameters.problems import Problems
from snf_image_host.plan import plan
from snf_image_host.planning.documents import fetch_parameters
from snf_image_host.reporter import Event, Failure, Reporter, Sink, StageStarted
from snf_image_host.sinks import MonitorProgram, public_names


def run_deploy(arguments: argparse.Namespace, session: Session) -> int:
    """``deploy`` and ``customize``."""
    deployment = _plan(arguments, session)
    from snf_image_host.deploy import customize, deploy  # noqa: PLC0415 - loaded when it is used

    act = deploy if arguments.command == "deploy" else customize
    spoiling = _Spoiling(session, arguments.command, arguments.disk)
    with _reporting(arguments, deployment, spoiling) as reporter:
        receipt = act(deployment, reporter)
    session.spoiled = None
    if arguments.json:
        print_json({"result": "success", "exit_code": 0, "receipt": receipt.as_json()})
    else:
        print_result(receipt.summary())
    return 0


def run_inspect(arguments: argparse.Namespace, session: Session) -> int:
    """``inspect``: what is on the image, as a table or JSON."""
    deployment = _plan(arguments, session)
    from snf_image_host.deploy import inspect_image  # noqa: PLC0415 - loaded when it is used

    report = InspectionReport(deployment.image.shown)
    with _reporting(arguments, deployment, report) as reporter:
        inspect_image(deployment, reporter)
    if arguments.json:
        print_json(report.as_json())
    else:
        print_result(report.as_text())
    return 0


def _plan(arguments: argparse.Namespace, session: Session) -> Deployment:
    config = load_config(config_files(arguments))
    request = build_request(arguments, config)
    session.secrets = (*request.parameters.values(), *config.os_parameters.values())
    arguments.verbose = arguments.verbose or arguments.debug or config.image_debug
    arguments.monitor = config.progress_monitor
    problems = Problems()
    given = merge_parameters(config.os_parameters, request.parameters)
    parameters = fetch_parameters(given, config, problems)
    session.secrets = (*session.secrets, *parameters.values())
    request = dataclasses.replace(request, parameters=parameters)
    return plan(request, dataclasses.replace(config, os_parameters={}), problems=problems)


@contextlib.contextmanager
def _reporting(arguments: argparse.Namespace, deployment: Deployment, *sinks: Sink) -> Iterator[Reporter]:
    """A reporter with the sinks of this command line; a failure is its last event (R-MON-6)."""
    reporter = Reporter(*make_sinks(arguments), *sinks)
    if arguments.monitor and deployment.job.action != "inspect":
        names = public_names(deployment)
        reporter.add(MonitorProgram(arguments.monitor, deployment.instance, names=names))
    with reporter.opened():
        for note in deployment.notes:
            reporter.debug(note)
        try:
            yield reporter
        except SnfImageError as error:
            reporter.emit(Failure(error=error))
            raise


class _Spoiling:
    """Knows what an interruption leaves behind: the disk is touched by these two stages."""

    def __init__(self, session: Session, command: str, disk: str) -> None:
        self._session = session
        if command == "deploy":
            self._text = f"the disk {disk} is not usable, deploy it again"
        else:
            self._text = f"the disk {disk} may be half customised and is not usable"

    def handle(self, event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage in ("copy", "customize"):
            self._session.spoiled = self._text

    def close(self) -> None:
        pass
