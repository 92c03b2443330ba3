"""A call of one script: what it was given, what is known of it when it ends, and who is told."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from snf_image_contract.secret import Secret
from snf_image_host.cli.interruption import Interrupted
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import Deployment
from snf_image_host.errors import HelperError, NodeError, SnfImageError, UserError
from snf_image_host.ganeti.environment import Environment
from snf_image_host.ganeti.node_files import NodeFiles
from snf_image_host.ganeti.summary import class_of
from snf_image_host.history import Journal, Record
from snf_image_host.reporter import Failure, Reporter, Sink
from snf_image_host.sinks import Lines, MonitorLog, MonitorProgram


@dataclasses.dataclass(slots=True, kw_only=True)
class Call:
    """``secrets``: not to be in a report. ``name``: the instance, once it is known to be a name.

    ``stays``: whether an instance stays behind if the script fails. ``written``: receipt of this run.
    """

    environment: Environment
    files: NodeFiles = dataclasses.field(default_factory=NodeFiles)
    log: TextIO = dataclasses.field(default_factory=lambda: sys.stderr)
    secrets: tuple[Secret, ...] = ()
    name: str | None = None
    stays: bool = False
    written: str | None = None

    @property
    def verbose(self) -> bool:
        """``gnt-instance add --debug`` acts like IMAGE_DEBUG=yes (R-SCR-4)."""
        return self.environment.get("DEBUG_LEVEL", "0") == "1"


class Run:
    """A run that changes disks: it has a reporter, a place in the history, and ends with a receipt.

    ``deployment`` is set as soon as it is decided.
    """

    def __init__(self, call: Call, config: NodeConfig, action: str) -> None:
        self._call = call
        self._config = config
        self._action = action
        self._record = Record()
        verbose = call.verbose or config.image_debug
        self.reporter = Reporter(Lines(call.log, verbose=verbose), self._record)
        self.deployment: Deployment | None = None
        self.journal: Journal | None = None

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """A failure within is told to every sink, once, and written down (R-MON-6)."""
        with contextlib.ExitStack() as alive:
            alive.enter_context(self.reporter.opened())
            self._open_journal(alive)
            try:
                yield
            except SnfImageError as error:
                self._failed(error, class_of(error))
                raise
            except Interrupted as interrupted:
                self._failed(NodeError(f"ended by {interrupted.signal.name}"), "interrupted")
                raise
            except Exception:
                self._failed(HelperError("internal error"), "a bug in snf-image")
                raise

    def add_monitor(self, names: Mapping[str, str]) -> None:
        """Tell the operator's program, or the log if there is none (R-MON-2).

        A program that cannot be started costs a warning (R-MON-4); a name that is none is no argument.
        """
        command = self._config.progress_monitor
        sink: Sink = MonitorLog(self._call.log, names=names)
        if command and self._call.name is not None:
            try:
                sink = MonitorProgram(command, self._call.name, names=names)
            except UserError as error:
                self.reporter.warn("the progress monitor is not told", details=str(error))
        self.reporter.add(sink)

    def succeeded(self, document: dict[str, Any]) -> None:
        """Write down what was done."""
        if self.journal is not None:
            self._call.written = self.journal.write(document)

    def _open_journal(self, alive: contextlib.ExitStack) -> None:
        if self._call.name is None:
            return
        journal = Journal(
            self._config.log_dir,
            self._call.name,
            self._action,
            keep=self._config.log_keep,
            max_size=self._config.log_max_size,
            reporter=self.reporter,
        )
        self.journal = alive.enter_context(journal)
        self.reporter.add(journal)

    def _failed(self, error: SnfImageError, kind: str) -> None:
        self.reporter.emit(Failure(error=error))
        if self.journal is not None:
            document = self._record.failure(
                error, kind=kind, instance=self._call.name or "", deployment=self.deployment
            )
            self._call.written = self.journal.write(document)
