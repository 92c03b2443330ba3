"""JSON lines for programs: every event, one object a line."""

from __future__ import annotations

import json
import time
from typing import Any, Final, TextIO

from snf_image_contract import codec
from snf_image_host.reporter import (
    ConsoleLine,
    CopyProgress,
    Debug,
    Event,
    Failure,
    HelperSaid,
    Info,
    StageEnded,
    StageStarted,
    Warning,
)
from snf_image_host.sinks.text import percent

_EVERY: Final = 0.5


class JsonLines:
    """``{"event": …, "time": seconds since the epoch, …}``; helper events under ``"helper"``."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._next = 0.0

    def handle(self, event: Event) -> None:
        if isinstance(event, CopyProgress):
            if not event.final and time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _EVERY
        document = self._document(event)
        if document is not None:
            self._stream.write(json.dumps({"time": round(time.time(), 3)} | document) + "\n")
            self._stream.flush()

    def _document(self, event: Event) -> dict[str, Any] | None:
        match event:
            case Info(message=message, details=details):
                return {"event": "info", "message": message} | ({"details": details} if details else {})
            case Warning(message=message):
                return {"event": "warning", "message": message}
            case StageStarted(stage=stage):
                return {"event": "stage-start", "stage": stage}
            case StageEnded(stage=stage, seconds=seconds):
                return {"event": "stage-end", "stage": stage, "seconds": round(seconds, 3)}
            case CopyProgress(position=position, total=total):
                share = round(percent(event), 2)
                return {"event": "copy-progress", "position": position, "total": total, "progress": share}
            case HelperSaid(event=said):
                return {"event": "helper", "helper": codec.encode(said)}
            case Failure(error=error):
                return {"event": "failure", "exit_code": error.exit_code, "messages": list(error.messages)}
            case Debug(message=message) if self._verbose:
                return {"event": "debug", "message": message}
            case ConsoleLine(text=text) if self._verbose:
                return {"event": "console", "text": text}
        return None

    def close(self) -> None:
        pass
