"""A deployment from start to receipt: read this first.

The helper VM boots while the image is copied. When the copy is whole, the disks are added to the running
VM, and last the parameter medium, which is what the helper waits for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Self

from snf_image_contract.job import Job
from snf_image_host import helper_image
from snf_image_host.copying import CopyResult, copy_image, disarm
from snf_image_host.copying.disarming import empty_end, wipe_ends, write_first_page
from snf_image_host.copying.program import Sent, copy_by_program
from snf_image_host.deployment import Deployment
from snf_image_host.disk_server import open_every_disk
from snf_image_host.disks import Disk
from snf_image_host.errors import SnfImageError, VerificationError
from snf_image_host.evidence import evidence_directory
from snf_image_host.helper_image import HelperImage
from snf_image_host.host_keys import HostKeyMaker
from snf_image_host.password_hashes import PasswordHasher
from snf_image_host.receipt import Receipt, build_receipt, check_receipt_path, write_receipt
from snf_image_host.reporter import Event, Reporter, StageEnded, StageStarted, Warning
from snf_image_host.sources.image import open_image
from snf_image_host.sources.stream import ImageStream, refuse_too_large
from snf_image_host.vm import Account, HelperVm, Outcome, launcher, make_state_later, start_helper


def deploy(deployment: Deployment, reporter: Reporter) -> Receipt:
    """Copy the image (unless there is none), customise the disk, write the receipt.

    Raises an :class:`~snf_image_host.errors.SnfImageError` that says whose fault it is; a disk that this run
    copied to does not boot then.
    """
    times = _Times(reporter)
    heard = _HeardWarnings()
    reporter.add(heard)
    for warning in deployment.warnings:
        reporter.warn(warning)
    if deployment.report is not None:
        check_receipt_path(deployment.report)
    with contextlib.ExitStack() as alive:
        evidence = alive.enter_context(evidence_directory(deployment, reporter))
        sent = _send(deployment, reporter, times)
        disks = alive.enter_context(open_every_disk(deployment.disks, deployment.serving, reporter))
        copy = deployment.copy and sent is None
        image = alive.enter_context(open_image(deployment.image, reporter)) if copy else None
        if image is not None:
            refuse_too_large(image, disks[0])
        disarmed = alive.enter_context(_DisarmedOnFailure(disks[0]))
        copied = None
        if sent is not None:
            disarmed.is_ours = True
            copied = sent.result
            write_first_page(disks[0], sent.first_page)
        helper = alive.enter_context(_Helper(deployment, reporter, evidence))
        if image is not None:
            disarmed.is_ours = True
            with times.stage("copy"):
                copied = _copy(deployment, image, disks[0], reporter)
            alive.callback(copied.give_up)
        outcome = helper.customize(disks, times)
        if copied is not None:
            with times.stage("digest") if copied.is_late else contextlib.nullcontext():
                copied = copied.whole()
    receipt = build_receipt(
        deployment,
        copied=copied,
        outcome=outcome,
        helper=helper.image,
        seconds=times.seconds,
        warnings=tuple(heard.messages),
    )
    if deployment.report is not None:
        write_receipt(deployment.report, receipt)
    if helper.image is not None and outcome is not None:
        make_state_later(deployment.helper, helper.image, outcome.accelerator)
    return receipt


def customize(deployment: Deployment, reporter: Reporter) -> Receipt:
    """The same without a copy: the disk is customised as it is, and never disarmed."""
    return deploy(dataclasses.replace(deployment, copy=False), reporter)


def inspect_image(deployment: Deployment, reporter: Reporter) -> Outcome:
    """Have the helper look at an image that it cannot write to; what it finds arrives as events (D-28)."""
    times = _Times(reporter)
    with contextlib.ExitStack() as alive:
        evidence = alive.enter_context(evidence_directory(deployment, reporter))
        disks = alive.enter_context(open_every_disk(deployment.disks, deployment.serving, reporter))
        helper = alive.enter_context(_Helper(deployment, reporter, evidence))
        return helper.work(deployment.job, disks, times, stage="inspect")


class _HeardWarnings:
    """A sink that remembers the host's own warnings, for the receipt."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def handle(self, event: Event) -> None:
        if isinstance(event, Warning):
            self.messages.append(event.message)

    def close(self) -> None:
        pass


class _Times:
    """How long each stage took, in seconds; said as it ends."""

    def __init__(self, reporter: Reporter) -> None:
        self.seconds: dict[str, float] = {}
        self._reporter = reporter

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._reporter.emit(StageStarted(stage=name))
        begun = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begun
        self._reporter.emit(StageEnded(stage=name, seconds=self.seconds[name]))


class _Helper:
    """The helper VM of a deployment, booting in the background, and the secrets that are made meanwhile.

    ``image`` None: nothing is to be customised, no VM is started (R-HLP-15).
    """

    def __init__(self, deployment: Deployment, reporter: Reporter, evidence: str) -> None:
        self._deployment = deployment
        self._reporter = reporter
        self._evidence = evidence
        self._alive = contextlib.ExitStack()
        self.image: HelperImage | None = None
        self._vm: HelperVm | None = None
        self._keys: HostKeyMaker | None = None
        self._hasher: PasswordHasher | None = None

    def __enter__(self) -> Self:
        if not self._deployment.run_helper:
            return self
        settings = self._deployment.helper
        with self._alive:
            self.image = helper_image.load(settings.directory)
            read_only = self._deployment.disks[0].read_only
            vm = start_helper(
                settings,
                self.image,
                self._reporter,
                self._evidence,
                slots="read-only" if read_only else "read-write",
            )
            self._vm = self._alive.enter_context(vm)
            self._keys = self._make_keys(vm.account)
            self._hasher = self._hash_passwords()
            self._alive = self._alive.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._alive.close()

    def _make_keys(self, account: Account) -> HostKeyMaker | None:
        comment = self._deployment.want_host_keys
        if comment is None or self._is_foreign:
            return None
        owner = (account.uid, account.gid) if account.switch else None
        maker = HostKeyMaker(comment, launcher=launcher(account), reporter=self._reporter, owner=owner)
        return self._alive.enter_context(maker)

    def _hash_passwords(self) -> PasswordHasher | None:
        job = self._deployment.job
        if self._is_foreign or job.action == "inspect":
            return None
        return self._alive.enter_context(PasswordHasher(job))

    @property
    def _is_foreign(self) -> bool:
        """A helper of somebody else reads the older form of the parameters, which knows no such secrets."""
        return self._deployment.helper.protocol == "text"

    def customize(self, disks: Sequence[Disk], times: _Times) -> Outcome | None:
        """Hand over the job, and the SSH host keys when they are made; None if there is no helper."""
        if self._vm is None:
            return None
        job = self._deployment.job
        hashes = () if self._hasher is None else self._hasher.hashes()
        with_secrets = dataclasses.replace(
            job,
            clock=time.time(),
            change_password=dataclasses.replace(job.change_password, made_hashes=hashes),
            delete_ssh_keys=dataclasses.replace(job.delete_ssh_keys, host_keys_follow=self._keys is not None),
        )
        return self.work(with_secrets, disks, times, stage="customize")

    def work(self, job: Job, disks: Sequence[Disk], times: _Times, *, stage: str) -> Outcome:
        """Wait for the helper and have it do ``job``."""
        assert self._vm is not None  # noqa: S101 - callers have started it
        with times.stage("helper-start"):
            self._vm.wait_ready()
        if self._keys is not None:
            self._keys.hand_over(self._vm.send_host_keys)
        with times.stage(stage):
            return self._vm.run_job(job, disks)


def _copy(deployment: Deployment, image: ImageStream, disk: Disk, reporter: Reporter) -> CopyResult:
    return copy_image(
        image,
        disk,
        digest=deployment.image.digest,
        may_be_late=True,
        wipe_tail=deployment.wipe_tail,
        idle_timeout=deployment.copy_idle_timeout,
        progress=reporter.emit,
    )


def _send(deployment: Deployment, reporter: Reporter, times: _Times) -> Sent | None:
    """Have a program of the operator write the image, if the disk is one of its own (R-BACK-3).

    We open the disk before, to see that it is there and free, and afterwards; never while the program has it.
    """
    first = deployment.disks[0]
    if not deployment.copy or first.program is None:
        return None
    with times.stage("copy"), open_image(deployment.image, reporter) as image:
        with _opened(deployment, reporter) as disk:
            refuse_too_large(image, disk)
            disarm(disk)
            empty_end(disk)
        try:
            return copy_by_program(
                image,
                first.program,
                first.path if first.uri is None else first.uri,
                str(deployment.image.format),
                reporter,
                digest=deployment.image.digest,
                idle_timeout=deployment.copy_idle_timeout,
                progress=reporter.emit,
            )
        except VerificationError:
            with contextlib.suppress(SnfImageError), _opened(deployment, reporter) as disk:
                wipe_ends(disk)
            raise
        except BaseException:
            with contextlib.suppress(SnfImageError), _opened(deployment, reporter) as disk:
                disarm(disk)
            raise


@contextlib.contextmanager
def _opened(deployment: Deployment, reporter: Reporter) -> Iterator[Disk]:
    with open_every_disk(deployment.disks[:1], deployment.serving, reporter) as (disk,):
        yield disk


class _DisarmedOnFailure:
    """A failure leaves a disk that does not boot, once the copy has begun (R-SCR-CREATE-3, D-12).

    Entered before the helper, so that the VM, which can write to the disk too, is gone by then.
    """

    def __init__(self, disk: Disk) -> None:
        self.is_ours = False
        """Whether this run writes an image to the disk; one that it only customises is left alone."""
        self._disk = disk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.is_ours:
            disarm(self._disk)
