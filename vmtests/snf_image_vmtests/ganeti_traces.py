"""What deployments leave on a Ganeti node: what monitors were told, logs, receipts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any, Final

from snf_image_process import PIPE, start
from snf_image_vmtests import places
from snf_image_vmtests.ganeti_cluster import Cluster, Told

MONITORED: Final = "/srv/monitored-"
"""Beginning of the files that the cluster's progress monitor writes; the instance's name follows."""
_LOGS: Final = "/var/log/ganeti/os"
_TOGETHER_SECONDS: Final = 300.0


def messages(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """What the progress monitor was told of an instance."""
    return [json.loads(line) for line in cluster.read(f"{MONITORED}{name}").splitlines()]


def receipts(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The history of an instance as the command prints it, with the receipts, oldest first."""
    command = places.command("snf-image")
    listed = json.loads(cluster.run(command, "history", name, "--json").demand().stdout)
    shown = []
    for row in listed:
        told = cluster.run(command, "show", name, "--entry", row["entry"], "--json").demand()
        shown.append(json.loads(told.stdout))
    return shown


def actions(cluster: Cluster, name: str) -> list[str]:
    """What was done to an instance: ``create``, ``import``, ``rename``, oldest first."""
    return [entry["entry"].rpartition("-")[2] for entry in receipts(cluster, name)]


def logs_of(cluster: Cluster, what: str, name: str) -> list[str]:
    """What the scripts wrote for an instance, oldest first; ``what``: Ganeti's word, such as ``add``."""
    found = [entry for entry in os.listdir(cluster.path(_LOGS)) if entry.startswith(what) and name in entry]
    return [cluster.read(f"{_LOGS}/{entry}") for entry in sorted(found)]


def together(cluster: Cluster, calls: Sequence[Sequence[str]]) -> list[Told]:
    """Run commands on the node at the same time."""
    with contextlib.ExitStack() as alive:
        running = [
            alive.enter_context(start(cluster.words(*call), stdout=PIPE, stderr=PIPE)) for call in calls
        ]
        answers = []
        for process in running:
            assert process.stdout is not None
            assert process.stderr is not None
            stdout, stderr = process.stdout.read(), process.stderr.read()
            status = process.wait(_TOGETHER_SECONDS)
            assert status is not None
            answers.append(Told(status=status, stdout=stdout.decode(), stderr=stderr.decode()))
        return answers
