"""The receipt: what a deployment was asked, what it did, and every file it touched. No secrets."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import secrets
import stat
from typing import Any, Final

from snf_image_contract.events import AnyTaskEnded, Changed, Detected, OperatorTaskEnded, Warned
from snf_image_contract.job import Job
from snf_image_contract.names import TaskName
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import Deployment
from snf_image_host.errors import NodeError, UserError
from snf_image_host.helper_image import HelperImage
from snf_image_host.vm import Outcome

FORMAT: Final = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A finished deployment as one JSON document (``as_json``) and in a few lines (``summary``)."""

    document: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return self.document

    def summary(self) -> str:
        """A few lines that stand by themselves: what was done to which disk."""
        document = self.document
        lines = [f"{document['instance']}: done, {document['disk']} is ready"]
        if document["image"]["copied_bytes"] is not None:
            digest = document["image"]["sha256"]
            lines.append(f"image: {document['image']['name']}" + (f", sha256 {digest}" if digest else ""))
        if document["system"] is not None:
            system = document["system"]
            lines.append(
                f"system: {system['distribution'] or system['os_family']} {system['version']}".rstrip()
            )
        done = [task for task in document["tasks"] if task["skipped"] is None]
        changes = sum(len(task["changes"] or ()) for task in done)
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in document["seconds"].items())
        lines.append(f"tasks: {len(done)} done, {changes} changes, {len(document['warnings'])} warnings")
        lines.append(f"time: {times}")
        return "\n".join(lines)


def build_receipt(
    deployment: Deployment,
    *,
    copied: CopyResult | None,
    outcome: Outcome | None,
    helper: HelperImage | None,
    seconds: dict[str, float],
    warnings: tuple[str, ...],
) -> Receipt:
    """Put together what is known. ``seconds``: duration of each stage; ``warnings``: the host's own."""
    events = outcome.events if outcome is not None else ()
    tasks = describe_tasks(events)
    detected = next((event for event in events if isinstance(event, Detected)), None)
    document = {
        "format": FORMAT,
        "version": version(),
        "result": "success",
        "instance": deployment.instance,
        "disk": deployment.disks[0].path,
        "image": {
            "name": deployment.image.shown,
            "format": str(deployment.image.format),
            "copied_bytes": None if copied is None else copied.image_bytes,
            "sha256": None if copied is None else copied.sha256,
            "source_sha256": None if copied is None else copied.source_sha256,
            "written_bytes": None if copied is None else copied.written,
        },
        "helper": None
        if helper is None or outcome is None
        else {
            "build": helper.build,
            "contract_version": helper.contract_version,
            "accelerator": str(outcome.accelerator),
            "warm": outcome.warm,
            "start_seconds": outcome.start_seconds,
            "job_seconds": outcome.job_seconds,
            "total_seconds": outcome.total_seconds,
        },
        "system": None if detected is None else describe_system(detected),
        "asked": describe_asked(deployment.job),
        "tasks": tasks,
        "complete": _is_complete(deployment.job, tasks),
        "warnings": [*warnings, *(describe_warning(event) for event in events if isinstance(event, Warned))],
        "warnings_left_out": 0 if outcome is None else outcome.warnings_left_out,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    return Receipt(document=document)


def version() -> str:
    """The version of this distribution."""
    return importlib.metadata.version("snf-image")


def describe_tasks(events: tuple[object, ...]) -> list[dict[str, Any]]:
    """Each task that ended, in order, with what it changed: None if that cannot be known."""
    changes: dict[TaskName, list[dict[str, str]]] = {}
    for event in events:
        if isinstance(event, Changed):
            changes.setdefault(event.task, []).extend(
                {"path": change.path, "change": change.change, "detail": change.detail}
                for change in event.changes
            )
    return [
        {
            "name": str(event.task),
            "seconds": event.seconds,
            "skipped": event.skipped,
            "changes": _unknown_changes(event)
            if isinstance(event, OperatorTaskEnded)
            else changes.get(event.task, []),
        }
        for event in events
        if isinstance(event, AnyTaskEnded)
    ]


def _unknown_changes(event: OperatorTaskEnded) -> list[dict[str, str]] | None:
    """A program of the operator that ran may have changed anything."""
    return None if event.skipped is None else []


def describe_system(detected: Detected) -> dict[str, Any]:
    """What was found on the disk."""
    return {
        "os_family": str(detected.os_family),
        "distribution": detected.distribution,
        "version": detected.version,
        "root_partition": detected.root_partition,
    }


def describe_asked(job: Job) -> dict[str, Any]:
    """What was asked, with nothing of a secret but that it was given (R-SEC-2, D-30)."""
    password = job.change_password
    network = job.configure_network
    swap = job.add_swap.swap
    skipped = [entry.task for entry in job.skipped]
    added = [task.file[2:] for task in job.operator_tasks if task.skipped is not None]
    return {
        "hostname": None if TaskName.ASSIGN_HOSTNAME in skipped else job.assign_hostname.name,
        "users": list(password.users),
        "password": password.password is not None,
        "password_hash": password.password_hash is not None,
        "keys": len(password.keys),
        "swap": None if swap is None else {"kind": swap.KIND} | dataclasses.asdict(swap),
        "cloud_init": job.cloud_init,
        "user_data": job.initialize_datasource.user_data is not None,
        "machine_id": job.change_machine_id.mode,
        "nics": [dataclasses.asdict(nic) for nic in network.nics],
        "files": [file.path for file in job.enforce_personality.files],
        "custom_task": job.run_custom_task.program is not None,
        "excluded": [*(str(task) for task in skipped), *added],
    }


def _is_complete(job: Job, tasks: list[dict[str, Any]]) -> bool:
    """Whether the list of changes is all there was: programs of others may have changed anything (D-30)."""
    ran = {task["name"] for task in tasks if task["skipped"] is None}
    custom = job.run_custom_task.program is not None and str(TaskName.RUN_CUSTOM_TASK) in ran
    unknown = any(task["changes"] is None for task in tasks)
    return not custom and not unknown and not job.allow_task_overwriting


def describe_warning(event: Warned) -> str:
    """A warning of the helper, with its task."""
    return f"{event.task}: {event.message}" if event.task else event.message


def check_receipt_path(path: str) -> None:
    """:class:`UserError` now rather than after the work: the receipt replaces a file, or makes a new one."""
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise UserError(f"the receipt {path} cannot be written: {parent} is no directory")
    # Renaming over a device, such as /dev/stdout, would replace it for the whole machine.
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise UserError(
            f"the receipt {path} cannot be written: it is no regular file", hint="--json prints the receipt"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"the receipt {path} cannot be written: no permission to write in {parent}")


def write_receipt(path: str, receipt: Receipt) -> None:
    """Write the receipt so that it is there whole or not at all, readable by its owner only (D-30)."""
    partial = f"{path}.{secrets.token_hex(4)}"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="ascii") as file:
                json.dump(receipt.as_json(), file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(fd)
            os.rename(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise
    except OSError as error:
        raise NodeError(
            f"the receipt {path} cannot be written: {error.strerror}", hint="the disk itself is ready"
        ) from None
