"""Sinks that fail."""

from __future__ import annotations

from snf_image_host.reporter import Event, Reporter, Warning


class Broken:
    def __init__(self) -> None:
        self.told = 0

    def handle(self, event: Event) -> None:
        self.told += 1
        raise OSError("gone")

    def close(self) -> None:
        raise OSError("gone")


class Healthy:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.events.clear()


def test_sinks_that_fail_together_harm_nobody() -> None:
    """R-MON-4: each is dropped once, with one warning to those that are left."""
    broken, healthy = [Broken(), Broken()], Healthy()
    reporter = Reporter(*broken, healthy)
    reporter.info("one")
    reporter.info("two")
    assert [sink.told for sink in broken] == [1, 1]
    assert [type(event) for event in healthy.events].count(Warning) == 2
    assert len(healthy.events) == 4
    reporter.close()
    assert healthy.events == []
