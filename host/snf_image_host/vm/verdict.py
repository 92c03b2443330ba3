"""Whether a helper VM that is gone did its work: the terminal rule, and whose fault it is if not.

Success is said, never inferred. All of this must hold: the last event is the success event and there is no
other final one, the word SUCCESS was the first line on the second port, qemu ended with status 0 after its
last SHUTDOWN event told that the guest had powered itself off, and that was before the deadline
(R-HLP-9, R-HLP-12, T-45). Foreign helpers send no success event; the rest holds for them as well.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

from snf_image_contract.events import Event, Failed, Hello, Succeeded
from snf_image_contract.job import CONTRACT_VERSION
from snf_image_host.errors import HelperError, ImageError, NodeError, SnfImageError, UserError
from snf_image_host.vm.commandline import UsedAccelerator
from snf_image_host.vm.qmp import DiskFault

Stopped = Literal["no", "soft", "hard", "fault"]
GUEST_SHUTDOWN: Final = "guest-shutdown"

_BLAME: Final[dict[str, type[SnfImageError]]] = {
    "request": UserError,
    "image": ImageError,
    "customization": HelperError,
    "helper": HelperError,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Everything that is known of a VM that is gone.

    ``stopped``: whether we ended it, and how: by SIGTERM at the soft limit, by SIGKILL after the hard
    one, or at once because of a fault. ``limit``: the soft limit that was set, in seconds.
    ``last_said`` and ``last_line``: the last step told of, the last line of the console.
    """

    terminal: Failed | Succeeded | None
    wants_success_event: bool
    fault: str | None
    says_success: bool
    result_errors: tuple[str, ...]
    status: int
    shutdown_reason: str | None
    stopped: Stopped
    limit: float | None
    hard_limit: float
    disk_faults: tuple[DiskFault, ...]
    last_said: str
    last_line: str
    panic: str
    stderr: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A job that was done. Times in seconds.

    ``warm``: it continued from a saved state. ``start_seconds``: start of the VM to its hello, or to its
    answer if it was restored (None: a foreign helper). ``job_seconds``: handing
    over the job to the end of the VM. ``warnings_left_out``: beyond MONITOR_MAX_MESSAGES.
    """

    accelerator: UsedAccelerator
    hello: Hello | None
    events: tuple[Event, ...]
    warnings_left_out: int
    warm: bool = False
    start_seconds: float | None
    job_seconds: float
    total_seconds: float


def demand_version(hello: Hello) -> None:
    """:class:`NodeError` for a helper that speaks another contract."""
    if hello.contract_version != CONTRACT_VERSION:
        raise NodeError(
            f"the helper image speaks contract version {hello.contract_version}, "
            f"this program speaks {CONTRACT_VERSION}",
            hint="rebuild the helper image with `snf-image helper build`",
        )


def judge(end: Ending) -> SnfImageError | None:
    """The error of a deployment that failed, or None for a success."""
    failure = _failure(end)
    writes_failed = any(fault.operation == "write" for fault in end.disk_faults)
    if end.disk_faults and (failure is not None or writes_failed):
        return _disk_error(end, failure)
    return failure


def _failure(end: Ending) -> SnfImageError | None:
    if isinstance(end.terminal, Failed):
        return _told(end.terminal)
    if end.fault is not None:
        return _broke_rules(end.fault, end)
    if end.stopped != "no":
        return _out_of_time(end)
    return _died(end) or _not_said(end)


def judge_start(end: Ending, *, limit: float | None) -> SnfImageError:
    """The error of a VM that never came as far as taking a job; ``limit`` set: that time ran out."""
    if isinstance(end.terminal, Failed):
        return _told(end.terminal)
    if limit is not None:
        return NodeError(
            f"the helper VM did not start within {limit:g} s",
            hint="`snf-image doctor --probe` tries the accelerator; the console is kept",
            details=_details(end),
        )
    if end.fault is not None:
        return _broke_rules(end.fault, end)
    died = _died(end)
    why = died.messages[0] if died is not None else "it powered itself off"
    return NodeError(f"the helper VM did not start: {why}", details=_details(end))


def _broke_rules(fault: str, end: Ending) -> SnfImageError:
    return HelperError(
        f"the helper broke the rules of its conversation with the host: {fault}",
        hint="the helper may be damaged or taken over; its console and events are kept",
        details=_details(end),
    )


def _told(failed: Failed) -> SnfImageError:
    """The helper's own account of a failure."""
    messages = failed.messages or ("the helper failed without saying why",)
    if failed.task is not None:
        messages = (f"{failed.task}: {messages[0]}", *messages[1:])
    if failed.blame == "helper":
        hint = "this is a bug of the helper, please report it"
        return HelperError(*messages, hint=hint, details=failed.stderr)
    return _BLAME[failed.blame](*messages, details=failed.stderr)


def _out_of_time(end: Ending) -> SnfImageError:
    how = "it was ended by SIGTERM"
    if end.stopped == "hard":
        how = f"it did not end within {end.hard_limit:g} s after SIGTERM and was killed"
    what = "the helper VM did not power itself off" if end.terminal else "the customisation did not finish"
    return HelperError(
        f"{what} within {end.limit or 0:g} s ({end.last_said}); {how}",
        hint="a slow node needs a longer HELPER_SOFT_TIMEOUT or HELPER_TCG_TIMEOUT_FACTOR",
        details=_details(end),
    )


def _died(end: Ending) -> SnfImageError | None:
    if end.status != 0:
        how = f"was killed by signal {-end.status}" if end.status < 0 else f"exit status {end.status}"
        return HelperError(f"the helper VM died: qemu: {how} ({end.last_said})", details=_details(end))
    if end.shutdown_reason == GUEST_SHUTDOWN:
        return None
    if end.panic:
        return HelperError(f"the helper's kernel gave up: {end.panic}", details=_details(end))
    reasons = {
        "guest-reset": "the helper restarted itself",
        "host-signal": "somebody ended the helper VM with a signal",
    }
    why = reasons.get(
        end.shutdown_reason or "", f"qemu gives {end.shutdown_reason or 'nothing'} as the reason"
    )
    return HelperError(
        f"the helper VM ended without powering itself off: {why} ({end.last_said})", details=_details(end)
    )


def _not_said(end: Ending) -> SnfImageError | None:
    if end.result_errors:
        return HelperError(*end.result_errors, details=_details(end))
    if not end.says_success:
        return HelperError(
            f"the helper VM ended without saying SUCCESS ({end.last_said})",
            hint="the disk must not be used",
            details=_details(end),
        )
    if end.wants_success_event and not isinstance(end.terminal, Succeeded):
        return HelperError(
            f"the helper VM said SUCCESS but sent no final event ({end.last_said})", details=_details(end)
        )
    return None


def _disk_error(end: Ending, failure: SnfImageError | None) -> SnfImageError:
    causes = []
    for fault in end.disk_faults:
        why = (
            "no space left where the disk is stored"
            if fault.no_space
            else fault.reason or "input/output error"
        )
        disk = fault.node.replace("disk-", "disk ")
        causes.append(f"{disk}: {fault.operation or 'access'} failed on the node: {why}")
    consequences = failure.messages if failure is not None else ()
    return NodeError(
        *dict.fromkeys(causes),
        *consequences,
        hint="check the node's storage; the disk must not be used",
        details=failure.details if failure is not None else (),
    )


def _details(end: Ending) -> tuple[str, ...]:
    console = (f"last line of the console: {end.last_line}",) if end.last_line else ()
    return (*console, *(f"qemu: {line}" for line in end.stderr))
