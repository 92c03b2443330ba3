"""A helper VM that has its job: followed to its end, and ended if it must be."""

from __future__ import annotations

import dataclasses
import signal

from snf_image_contract.events import Failed
from snf_image_host.reporter import Reporter
from snf_image_host.vm.console import Console
from snf_image_host.vm.conversation import Conversation
from snf_image_host.vm.qemu import Qemu
from snf_image_host.vm.result import ResultPort
from snf_image_host.vm.verdict import Ending, Stopped
from snf_image_process import Deadline


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The process and what listens to it. ``hard_timeout``, ``failed_grace``: seconds."""

    qemu: Qemu
    conversation: Conversation
    result: ResultPort
    console: Console
    reporter: Reporter
    debug: bool
    wants_success_event: bool
    hard_timeout: float
    failed_grace: float

    def follow(self, deadline: Deadline) -> Stopped:
        """Until the VM is gone; ends it if it must be. Returns whether, and how."""
        conversation = self.conversation
        in_time = conversation.wait(lambda: conversation.terminal is not None, deadline)
        if in_time and isinstance(conversation.terminal, Failed):
            deadline = self._after_failure(deadline)
        if in_time and conversation.fault is None:
            in_time = conversation.wait(lambda: False, deadline)
        if conversation.fault is not None and not isinstance(conversation.terminal, Failed):
            self.qemu.running.stop()
            return "fault"
        if in_time and self.qemu.wait(_seconds(deadline)) is not None:
            return "no"
        return self._end()

    def _after_failure(self, deadline: Deadline) -> Deadline:
        """A helper that has failed has little left to do, unless somebody looks for the cause in it."""
        if self.debug:
            self.reporter.warn("a task failed: the debug shell is open until the time limit")
            return deadline
        return Deadline(deadline.wait_time(self.failed_grace))

    def _end(self) -> Stopped:
        """SIGTERM, and SIGKILL if that does not help (R-HLP-10)."""
        qemu = self.qemu
        qemu.running.signal(signal.SIGTERM)
        if qemu.wait(self.hard_timeout or None) is not None:
            return "soft"
        qemu.running.stop()
        return "hard"

    def stop_now(self) -> Stopped:
        """For a VM that did not start: gone by itself, or ended at once."""
        qemu = self.qemu
        if self.conversation.is_over and qemu.wait(2.0) is not None:
            return "no"
        qemu.running.stop()
        return "fault"

    def ending(self, stopped: Stopped, limit: float | None) -> Ending:
        """What is known of the VM, which is gone."""
        qemu = self.qemu
        status = qemu.wait(None)
        qemu.settle()
        conversation = self.conversation
        return Ending(
            terminal=conversation.terminal,
            wants_success_event=self.wants_success_event,
            fault=conversation.fault,
            says_success=self.result.says_success,
            result_errors=self.result.errors,
            status=-signal.SIGKILL if status is None else status,
            shutdown_reason=qemu.qmp.shutdown_reason,
            stopped=stopped,
            limit=limit,
            hard_limit=self.hard_timeout,
            disk_faults=tuple(qemu.qmp.disk_faults),
            last_said=conversation.last_said,
            last_line=self.console.last_line,
            panic=self.console.panic,
            stderr=qemu.printed,
        )


def _seconds(deadline: Deadline) -> float | None:
    return None if deadline.seconds is None else deadline.remaining()
