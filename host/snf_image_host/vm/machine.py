"""The helper VM of one deployment, alive: from its start, through its job, to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Final, Self

from snf_image_contract.events import Hello
from snf_image_contract.job import (
    PARAMETER_SERIAL,
    SLOTS_FILLED,
    SLOTS_WORD,
    HostKey,
    HostKeys,
    Job,
    dump_host_keys,
)
from snf_image_host.deployment import HelperSettings
from snf_image_host.disks import ServedDisk
from snf_image_host.errors import NodeError, SnfImageError, UserError
from snf_image_host.reporter import Reporter
from snf_image_host.vm.accelerator import Choice, HelperFiles, choose_accelerator
from snf_image_host.vm.account import Account, account_for
from snf_image_host.vm.commandline import ColdDisk, Slots, UsedAccelerator, kernel_words
from snf_image_host.vm.console import Console
from snf_image_host.vm.conversation import Bounds, Conversation
from snf_image_host.vm.disks import DiskAdder, HelperDisk, cold_disk, forbid_growth
from snf_image_host.vm.evidence import EvidenceFile
from snf_image_host.vm.json_events import JsonEvents
from snf_image_host.vm.medium import build_medium, disk_letters, job_files
from snf_image_host.vm.qemu import Qemu
from snf_image_host.vm.qmp import QmpError
from snf_image_host.vm.redaction import Redaction
from snf_image_host.vm.result import ResultPort
from snf_image_host.vm.room import room_for_vm
from snf_image_host.vm.saved_state import PRELOAD_WORD, StateError, fresh_entropy, store_of
from snf_image_host.vm.serial import Port
from snf_image_host.vm.text_events import TextEvents
from snf_image_host.vm.verdict import Outcome, demand_version, judge, judge_start
from snf_image_host.vm.watch import Watch
from snf_image_process import Deadline

RESTORE_SECONDS: Final = 2.0
"""For a restored helper to answer; times the factor under TCG."""
_ASK_EVERY: Final = 0.1
FAILED_GRACE: Final = 15.0
"""Seconds for a helper that has failed to unmount and power itself off; times the factor under TCG."""


def start_helper(
    settings: HelperSettings,
    image: HelperFiles,
    reporter: Reporter,
    evidence_dir: str,
    *,
    account: Account | None = None,
    choice: Choice | None = None,
    slots: Slots = "read-write",
) -> HelperVm:
    """Start the helper VM and return at once, while it boots. To be called in the main thread.

    ``slots``: how the instance's first disk is going to be used. ``account`` None: by :func:`account_for`;
    ``choice`` None: by :func:`choose_accelerator`. The result is a context manager; leaving it leaves no
    process, socket or file behind.
    """
    vm = HelperVm(settings, image, reporter, evidence_dir, slots)
    try:
        vm.start(account, choice)
    except BaseException:
        vm.close()
        raise
    return vm


class HelperVm:
    """See :func:`start_helper`. A foreign helper (protocol ``text``) starts only with :meth:`run_job`."""

    def __init__(
        self,
        settings: HelperSettings,
        image: HelperFiles,
        reporter: Reporter,
        evidence_dir: str,
        slots: Slots = "read-write",
    ) -> None:
        self._slots: Slots = slots
        self.image = image
        self.choice = Choice(accelerator="tcg")
        self.account = Account.of_caller()
        """Who qemu runs as; for other programs of the same deployment."""
        self._settings = settings
        self._foreign = settings.protocol == "text"
        self._reporter = reporter
        self._evidence_dir = evidence_dir
        self._alive = contextlib.ExitStack()
        os.makedirs(evidence_dir, mode=0o700, exist_ok=True)
        logs = [
            EvidenceFile(evidence_dir, name) for name in ("console.log", "result.log", self._events_log_name)
        ]
        for log in logs:
            self._alive.callback(log.close)
        self._logs = tuple(logs)
        self._redaction = Redaction()
        self._qemu: Qemu | None = None
        self._restored = False
        self._begun = time.monotonic()
        self._listen()

    def _listen(self) -> None:
        """Consumers of the ports, for a VM that has said nothing yet."""
        console, result, events = self._logs
        self._console = Console(self._reporter, console, self._redaction)
        self._result = ResultPort(result, self._redaction)
        bounds = Bounds(warnings=self._settings.max_messages)
        self._conversation = Conversation(self._reporter, bounds, self._redaction)
        listener = TextEvents if self._foreign else JsonEvents
        self._events = listener(self._conversation, events)

    @property
    def _events_log_name(self) -> str:
        return "events.txt" if self._foreign else "events.jsonl"

    @property
    def accelerator(self) -> UsedAccelerator:
        return self.choice.accelerator

    def start(self, account: Account | None, choice: Choice | None) -> None:
        """Decide who qemu runs as and how, and start it."""
        self._alive.enter_context(room_for_vm(self._settings, self._reporter))
        self.decide(account, choice)
        if not self._foreign:
            if self._settings.param_medium == "floppy":
                raise UserError(
                    "PARAM_MEDIUM=floppy is for foreign helpers (HELPER_PROTOCOL=text)",
                    hint="leave PARAM_MEDIUM unset",
                )
            if not (self._settings.warm and not self._settings.debug and self._restore()):
                self._boot(())

    def boot_to_be_saved(self) -> None:
        """Boot a VM that loads what jobs need before its hello; see :mod:`.warm`."""
        self._boot((), [PRELOAD_WORD])

    def decide(self, account: Account | None = None, choice: Choice | None = None) -> None:
        """Who qemu runs as, and by which accelerator."""
        if account is None:
            account = self._alive.enter_context(account_for(self._settings, self._reporter))
        self.account = account
        self.choice = choice or choose_accelerator(self._settings, self.image, account, self._reporter)

    def wait_ready(self) -> Hello | None:
        """Wait until the helper has said hello; None for foreign helpers, which do not.

        :class:`NodeError` if it does not start in time, or is of another contract version.
        """
        if self._foreign:
            return None
        if self._restored and not self._answers():
            self._start_anew("it does not answer")
        conversation = self._conversation
        limit = self.scaled(self._settings.start_timeout)
        left = None if limit is None else max(0.0, self._begun + limit - time.monotonic())
        in_time = conversation.wait(lambda: conversation.hello is not None, Deadline(left))
        hello = conversation.hello
        if hello is None or conversation.fault is not None or conversation.terminal is not None:
            watch = self._watch
            ending = watch.ending(watch.stop_now(), None)
            raise self._kept(judge_start(ending, limit=None if in_time else limit))
        demand_version(hello)
        if hello.build != self.image.build:
            self._reporter.warn("the helper that started is not the build that its manifest names")
        return hello

    def run_job(self, job: Job, disks: Sequence[HelperDisk | ServedDisk]) -> Outcome:
        """Give the helper its disks and its job, follow it to its end, and judge that end.

        ``disks`` in the instance's order; they stay the caller's. Raises the error of a job that failed:
        by whose fault it is, with the evidence directory in ``kept``. The VM is gone afterwards.
        """
        # The copy may have taken an hour since the job was decided (R-HLP-16).
        entropy = None if self._foreign else fresh_entropy()
        job = dataclasses.replace(job, clock=time.time(), entropy=entropy)
        self._redaction.learn(job)
        limit = self.scaled(self._settings.soft_timeout)
        given = self._hand_over_cold(job, disks) if self._foreign else self._hand_over(job, disks)
        deadline = Deadline(None if limit is None else max(0.0, given + limit - time.monotonic()))
        watch = self._watch
        ending = watch.ending(watch.follow(deadline), limit)
        gone = time.monotonic()
        self._reporter.info(f"helper VM ended, status {ending.status}")
        error = judge(ending)
        if error is not None:
            raise self._kept(error)
        conversation = self._conversation
        hello_at = conversation.awake_at if self._restored else conversation.hello_at
        return Outcome(
            accelerator=self.accelerator,
            warm=self._restored,
            hello=conversation.hello,
            events=conversation.events,
            warnings_left_out=conversation.warnings_left_out,
            start_seconds=None if hello_at is None else round(hello_at - self._begun, 3),
            job_seconds=round(gone - given, 3),
            total_seconds=round(gone - self._begun, 3),
        )

    def send_host_keys(self, keys: tuple[HostKey, ...]) -> None:
        """Send the keys of a job with ``host_keys_follow``; after :meth:`wait_ready`, from any thread."""
        self._redaction.learn(HostKeys(keys=keys))
        self._events_port.send(dump_host_keys(HostKeys(keys=keys)))

    def close(self) -> None:
        """End the VM if it runs, and give everything back. May be called twice."""
        if self._qemu is not None:
            self._qemu.close()
        self._alive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _boot(
        self, disks: Sequence[ColdDisk], extra_words: Sequence[str] = (), *, incoming: bool = False
    ) -> None:
        self._begun = time.monotonic()
        self._events_port = Port("events", self._events)
        ports = (Port("console", self._console), Port("result", self._result), self._events_port)
        qemu = Qemu(
            self._settings,
            account=self.account,
            groups=self.choice.groups,
            accelerator=self.accelerator,
            ports=ports,
            evidence_dir=self._evidence_dir,
        )
        self._qemu = qemu
        image = self.image
        slots = None if self._foreign else self._slots
        extra = [*([] if slots is None else [SLOTS_WORD]), *extra_words]
        words = kernel_words(image, self.accelerator, debug=self._settings.debug, extra=extra)
        try:
            qemu.start(
                kernel=image.kernel,
                initrd=image.initrd,
                words=words,
                root=image.root,
                disks=disks,
                slots=slots,
                incoming=incoming,
            )
        except NodeError as error:
            raise self._kept(error) from None
        how = "restored" if incoming else "started"
        self._reporter.info(f"helper VM {how} ({self.accelerator})")
        if (terminal := qemu.debug_terminal()) is not None:
            self._reporter.info(f"the helper's debug shell will be on {terminal} if a task fails")

    def _restore(self) -> bool:
        """Continue from a saved state; False if there is none that can be used."""
        try:
            state = store_of(self._settings, self.image, self.accelerator).open()
            if state is None:
                return False
            with state:
                state.demand_build(self.image.build)
                self._boot((), [PRELOAD_WORD], incoming=True)
                state.demand_qemu(self.qemu.qmp.version)
                state.verify()
                self.qemu.restore(state.fd, Deadline(self.scaled(RESTORE_SECONDS)))
                self._events.feed(state.record.hello)
                # Answered while the image is copied. Loading the state loses the first byte, which the port
                # has taken by then; what comes behind waits, and is heard when the helper runs.
                self._events_port.send(b"\n\n")
        except (StateError, QmpError, NodeError) as error:
            self._give_up_state(str(error))
            return False
        self._restored = True
        return True

    def _answers(self) -> bool:
        """Wait for the answer to what :meth:`_restore` asked, and ask again, for a while."""
        conversation = self._conversation
        end = Deadline(self.scaled(RESTORE_SECONDS))
        while not conversation.wait(lambda: conversation.awake_at is not None, Deadline(_ASK_EVERY)):
            if end.passed():
                break
            self._events_port.send(b"\n")
        return conversation.awake_at is not None and conversation.fault is None

    def _start_anew(self, why: str) -> None:
        self._give_up_state(why)
        self._boot(())

    def _give_up_state(self, why: str) -> None:
        """A saved state is a convenience: whatever is wrong with it, the VM starts without it."""
        self._reporter.warn(f"the helper starts anew, its saved state cannot be used: {why}")
        store_of(self._settings, self.image, self.accelerator).discard()
        self._restored = False
        if self._qemu is not None:
            self._qemu.close()
            self._qemu = None
        self._listen()

    def _hand_over(self, job: Job, disks: Sequence[HelperDisk | ServedDisk]) -> float:
        """Give it the first disk and the job, then the other disks; returns when the job was given.

        The others wait, so that none is found before the first one, which is ``vda`` (D-19).
        """
        medium = build_medium(job_files(job, rules=False))
        try:
            self.wait_ready()
            conversation = self._conversation
            qemu = self.qemu
            adder = DiskAdder(qemu.qmp)
            forbid_growth(qemu.running.pid, tuple(disks))
            try:
                first, *others = disks
                adder.add_disk(first)
                conversation.job_given = True
                adder.add_medium(medium)
                self._events_port.send(SLOTS_FILLED)
                given = time.monotonic()
                if others:
                    limit = Deadline(self.scaled(self._settings.soft_timeout))
                    conversation.wait(lambda: conversation.job_accepted, limit)
                for disk in others:
                    adder.add_disk(disk)
            except NodeError as error:
                if qemu.wait(0.3) is None:
                    raise self._kept(error) from None
                # Not the disk's fault: the VM is gone.
                raise self._kept(judge(self._watch.ending("no", None)) or error) from None
        finally:
            os.close(medium)
        return given

    def _hand_over_cold(self, job: Job, disks: Sequence[HelperDisk | ServedDisk]) -> float:
        """A foreign helper finds its disks and its parameters when it starts."""
        floppy = self._settings.param_medium == "floppy"
        with contextlib.ExitStack() as opened:
            cold = []
            for disk in disks:
                if isinstance(disk, ServedDisk):
                    raise UserError(f"a foreign helper cannot be given {disk.path}, a disk with a URI")
                cold.append(cold_disk(disk))
                opened.callback(os.close, cold[-1].fd)
            medium = build_medium(job_files(job, rules=True), floppy=floppy)
            opened.callback(os.close, medium)
            serial = None if floppy else PARAMETER_SERIAL
            cold.append(ColdDisk(fd=medium, serial=serial, is_block=False, read_only=True))
            device = "/dev/fd0" if floppy else f"/dev/vd{disk_letters(len(disks))}"
            self._conversation.job_given = True
            self._boot(cold, [f"rules_dev={device}"])
        forbid_growth(self.qemu.running.pid, tuple(disks))
        return self._begun

    @property
    def _watch(self) -> Watch:
        return Watch(
            qemu=self.qemu,
            conversation=self._conversation,
            result=self._result,
            console=self._console,
            reporter=self._reporter,
            debug=self._settings.debug,
            wants_success_event=not self._foreign,
            hard_timeout=self._settings.hard_timeout,
            failed_grace=self.scaled(FAILED_GRACE) or FAILED_GRACE,
        )

    def scaled(self, seconds: float) -> float | None:
        """A time limit on this accelerator; None for no limit."""
        factor = self._settings.tcg_factor if self.accelerator == "tcg" else 1.0
        return seconds * factor or None

    @property
    def qemu(self) -> Qemu:
        """The process; there is one from the start to :meth:`close`."""
        assert self._qemu is not None, "not started"  # noqa: S101 - a bug of the caller's
        return self._qemu

    def _kept(self, error: SnfImageError) -> SnfImageError:
        error.kept = self._evidence_dir
        return error
