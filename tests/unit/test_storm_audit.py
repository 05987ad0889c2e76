"""The checker of the chaos tier finds what it is there to find."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.storm_audit import Findings, audit
from tests.chaos.storm_clients import RUNS_FILE, Book, answers, is_quiet
from tests.harness import user_message

END = {"type": "session.status_idle", "stop_reason": {"type": "end_turn"}}
KEY = "a-key-of-the-test"


def _history() -> list[dict[str, Any]]:
    bare: list[dict[str, Any]] = [
        user_message("[[say: token-1a]]"),
        {"type": "session.status_running"},
        {"type": "session.thread_status_idle"},
        {"type": "session.usage"},
        END,
    ]
    return [
        {"id": f"sevt_{n}", "processed_at": f"2026-01-01T00:00:0{n}Z", **event}
        for n, event in enumerate(bare)
    ]


def _read(root: Path, events: list[dict[str, Any]], *, output: str = "", **seen: Any) -> Findings:
    book = Book("sesn_1", tokens=["token-1a"], accepted_ids=["sevt_0"], **seen)
    return audit([book], {"sesn_1": events}, data_dir=root, secrets=[KEY], output=output)


def test_books_that_balance_have_no_findings(tmp_path: Path) -> None:
    """One message, one end."""
    found = _read(tmp_path, _history(), streamed_ids={"sevt_0", "sevt_4"})
    assert (found.accepted, found.ended, found.broken) == (1, 1, [])


def test_a_message_that_is_not_in_the_log_is_lost(tmp_path: Path) -> None:
    """The client has its id."""
    assert len(_read(tmp_path, []).lost) == 2


def test_a_turn_without_an_end_is_lost(tmp_path: Path) -> None:
    """So is one of which the client saw no end in time."""
    assert _read(tmp_path, _history()[:2]).lost
    assert _read(tmp_path, _history(), stuck=["text"]).lost


def test_a_second_end_is_found(tmp_path: Path) -> None:
    """Without a message in between."""
    events = _history()
    events.append({**events[-1], "id": "sevt_9", "processed_at": "2026-01-01T00:00:09Z"})
    assert _read(tmp_path, events).ended_twice


def test_a_message_that_was_taken_twice_is_found(tmp_path: Path) -> None:
    """Of a request that failed and was accepted all the same it may be there once."""
    once, twice = _history(), _history()
    twice += copy.deepcopy(once)
    assert not _read(tmp_path, once, unanswered=["token-1a"]).run_twice
    assert _read(tmp_path, twice, unanswered=["token-1a"]).run_twice


def test_a_command_that_ran_twice_is_found(tmp_path: Path) -> None:
    """By what it left in the session's directory."""
    workspace = tmp_path / "workspaces" / "sesn_1"
    workspace.mkdir(parents=True)
    (workspace / RUNS_FILE).write_text("a\nb\na\n")
    found = _read(tmp_path, _history())
    assert (found.run_twice, found.commands_run) == (["the command of a"], 2)


def test_what_was_shown_and_is_not_stored_is_found(tmp_path: Path) -> None:
    """A reader has an event that the log does not."""
    assert _read(tmp_path, _history(), streamed_ids={"sevt_7"}).vanished


@pytest.mark.parametrize("place", ["file", "output"])
def test_secrets_are_found(tmp_path: Path, place: str) -> None:
    """In any file below the data directory, and in what the process wrote."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_text(f"x{KEY}x" if place == "file" else "")
    assert _read(tmp_path, _history(), output=KEY if place == "output" else "").secrets


def test_a_client_knows_when_nothing_runs_and_what_is_asked() -> None:
    """Not while a message waits, nor while a call does; what was answered is not answered again."""
    events = _history()
    assert is_quiet([])
    assert is_quiet(events)
    assert not is_quiet(events[:1])
    assert not is_quiet([*events, {**events[0], "processed_at": None}])
    call = {"id": "sevt_5", "type": "agent.tool_use", "processed_at": "x"}
    asks = {"type": "requires_action", "event_ids": ["sevt_5"]}
    waits = [*events[:2], call, {**events[-1], "stop_reason": asks}]
    assert not is_quiet(waits)
    (answer,) = answers(waits)
    assert (answer["type"], answer["tool_use_id"]) == ("user.tool_confirmation", "sevt_5")
    assert answers([*waits, {**answer, "id": "sevt_6", "processed_at": None}]) == []
