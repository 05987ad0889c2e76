"""Subscribers of an event."""

from __future__ import annotations

from structlog.testing import capture_logs

from sidecar.aiokit import Callbacks


def test_a_subscriber_that_raises_harms_no_other() -> None:
    """It is logged, the others are called in the order in which they came, and the caller goes on."""
    callbacks, seen = Callbacks[[str]]("end of a turn"), []

    def broken(_what: str) -> None:
        raise KeyError("x")

    callbacks.add(lambda what: seen.append(f"one {what}"))
    callbacks.add(broken)
    callbacks.add(lambda what: seen.append(f"two {what}"))
    with capture_logs() as logs:
        callbacks("is over")
    assert seen == ["one is over", "two is over"]
    assert [(line["event"], line["about"]) for line in logs] == [
        ("subscriber failed", "end of a turn")
    ]


def test_a_subscriber_can_leave_also_while_it_is_called() -> None:
    """Leaving twice changes nothing."""
    callbacks, seen = Callbacks[[]]("event"), []

    def once() -> None:
        seen.append("once")
        leave()

    leave = callbacks.add(once)
    callbacks()
    callbacks()
    leave()
    assert seen == ["once"]
    assert not callbacks
