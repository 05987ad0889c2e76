"""What must be true after a storm, whatever happened in it: the log, the files and what clients saw agree."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.storm_clients import RUNS_FILE, Book
from tests.event_rules import check_events

Events = Sequence[Mapping[str, Any]]

_REPLACED = ("opencode is being restarted", "opencode was replaced")
"""What a turn says that a replacement of opencode has cut."""


@dataclass
class Findings:
    """Counts, and every promise that was broken."""

    accepted: int = 0
    ended: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    commands_run: int = 0
    streamed: int = 0
    lost: list[str] = field(default_factory=list)
    ended_twice: list[str] = field(default_factory=list)
    run_twice: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)
    cut_by_replacement: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)

    def promises(self) -> dict[str, list[str]]:
        """Return the cases in which each promise was broken."""
        return {
            "lost": self.lost,
            "ended twice": self.ended_twice,
            "run twice": self.run_twice,
            "shown and not stored": self.vanished,
            "unsound logs": self.unsound,
            "cut by a replacement": self.cut_by_replacement,
            "secrets found": self.secrets,
        }

    @property
    def broken(self) -> list[str]:
        """One sentence per case."""
        return [f"{name}: {case}" for name, cases in self.promises().items() for case in cases]


def audit(
    books: Sequence[Book],
    histories: Mapping[str, Events],
    *,
    data_dir: Path,
    secrets: Sequence[str],
    output: str,
) -> Findings:
    """Compare what clients saw with the log and with what agents did. Reads files."""
    found = Findings()
    for book in books:
        events = histories[book.session_id]
        _check_messages(found, book, events)
        _check_turns(found, book, events)
        workspace = data_dir / "workspaces" / book.session_id
        _check_runs(found, workspace / RUNS_FILE)
        try:
            check_events(events)
        except (AssertionError, KeyError, ValueError) as error:
            found.unsound.append(f"{book.session_id}: {error}")
    places = [("the log of the process", output.encode()), *_files(data_dir)]
    found.secrets += [
        f"{secret[:12]}... in {name}"
        for name, data in places
        for secret in secrets
        if secret.encode() in data
    ]
    return found


def _check_messages(found: Findings, book: Book, events: Events) -> None:
    by_id = {event["id"]: event for event in events}
    texts = [event["content"][0]["text"] for event in events if event["type"] == "user.message"]
    found.lost += [
        f"message {id_} of {book.session_id}" for id_ in book.accepted_ids if id_ not in by_id
    ]
    for token in book.tokens:
        if sum(token in text for text in texts) != 1:
            found.lost.append(f"{token} is in the log {sum(token in t for t in texts)} times")
    for token in book.unanswered:
        if sum(token in text for text in texts) > 1:
            found.run_twice.append(f"{token} was accepted twice")
    found.streamed += len(book.streamed_ids)
    found.vanished += [f"{id_} of {book.session_id}" for id_ in book.streamed_ids - by_id.keys()]
    found.lost += [f"no end of {name} in {book.session_id}" for name in book.stuck]


def _check_turns(found: Findings, book: Book, events: Events) -> None:
    """Every message opens a turn with exactly one end before the next one."""
    opened = ""
    failure = ""
    for event in events:
        if event["type"] == "user.message":
            found.accepted += 1
            if opened:
                found.lost.append(f"the turn of {opened} in {book.session_id} has no end")
            opened, failure = event["id"], ""
        elif event["type"] == "session.error":
            failure = event["error"]["type"]
            if any(words in event["error"]["message"] for words in _REPLACED):
                found.cut_by_replacement.append(f"{opened} in {book.session_id}")
        elif event["type"] == "session.status_idle":
            reason = event["stop_reason"]["type"]
            if reason == "requires_action":
                continue
            if not opened:
                found.ended_twice.append(f"{event['id']} in {book.session_id}")
            found.ended += bool(opened)
            found.endings[f"{reason} ({failure})" if failure else reason] += 1
            opened = ""
    if opened:
        found.lost.append(f"the turn of {opened} in {book.session_id} has no end")


def _check_runs(found: Findings, runs: Path) -> None:
    if not runs.exists():
        return
    counted = Counter(runs.read_text().split())
    found.commands_run += len(counted)
    found.run_twice += [f"the command of {token}" for token, n in counted.items() if n > 1]


def _files(directory: Path) -> Iterator[tuple[str, bytes]]:
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent) / name
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(directory)), path.read_bytes()
