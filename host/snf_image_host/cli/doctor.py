"""The command ``doctor``."""

from __future__ import annotations

import argparse
import dataclasses

from snf_image_host.cli.asking import config_files, overrides
from snf_image_host.cli.output import print_json, print_result
from snf_image_host.cli.session import Session
from snf_image_host.doctor import Finding, examine
from snf_image_host.errors import NodeError

_MARKS = {"fine": "ok      ", "warning": "warning ", "problem": "PROBLEM "}


def run_doctor(arguments: argparse.Namespace, session: Session) -> int:
    """Print the findings; status 5 if one of them prevents deployments (D-32)."""
    findings = examine(config_files(arguments), overrides(arguments), probe=arguments.probe)
    prevented = any(finding.status == "problem" for finding in findings)
    exit_code = NodeError.exit_code if prevented else 0
    if session.as_json:
        document = {
            "exit_code": exit_code,
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
        print_json(document)
    else:
        lines = [line for finding in findings for line in _lines(finding)]
        lines += ["", "this machine cannot deploy" if prevented else "this machine can deploy"]
        print_result("\n".join(lines))
    return exit_code


def _lines(finding: Finding) -> list[str]:
    lines = [f"{_MARKS[finding.status]} {finding.check}: {finding.message}"]
    if finding.advice:
        lines.append(f"           -> {finding.advice}")
    return lines
