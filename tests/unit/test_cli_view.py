"""What a session looks like on the terminal, and as JSON lines."""

from __future__ import annotations

import io
import json
from typing import Any

from rich.console import Console

from sidecar.commands.output import Masker, harmless
from sidecar.commands.run import Result
from sidecar.commands.run_view import JsonView, TerminalView

START = {"type": "event_start", "event": {"type": "agent.message", "id": "sevt_1"}}


def delta(text: str, event_id: str = "sevt_1") -> dict[str, Any]:
    content = {"type": "text", "text": text}
    inner = {"type": "content_delta", "index": 0, "content": content}
    return {"type": "event_delta", "event_id": event_id, "delta": inner}


def message(text: str, event_id: str = "sevt_1") -> dict[str, Any]:
    return {"type": "agent.message", "id": event_id, "content": [{"type": "text", "text": text}]}


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "agent.tool_use", "id": "sevt_t", "name": name, "input": arguments}


def result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "agent.tool_result", "id": "sevt_r", "content": content, "is_error": is_error}


def show(*events: dict[str, Any]) -> tuple[str, str]:
    """Return (stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    view = TerminalView(out=out, console=Console(file=err, width=80))
    for event in events:
        view.event(event)
    view.close()
    return out.getvalue(), err.getvalue()


def test_text_appears_as_it_is_written_and_once() -> None:
    """Deltas are shown at once; the finished message adds only what they lacked."""
    assert show(START, delta("Hel"), delta("lo"), message("Hello you"))[0] == "Hello you\n"


def test_a_message_without_previews_is_shown_whole() -> None:
    """Nothing is lost when no delta came, and messages keep apart."""
    out, _ = show(message("one"), message("two", "sevt_2"))

    assert out == "one\ntwo\n"


def test_a_preview_that_never_ends_leaves_a_whole_line() -> None:
    """A turn that is cut leaves the terminal at the beginning of a line."""
    assert show(START, delta("half"))[0] == "half\n"


def test_tools_go_to_stderr_in_the_middle_of_the_text() -> None:
    """A call and the first lines of its result are shown beside the answer, not inside it."""
    lines = "\n".join(f"line {n}" for n in range(5))
    out, err = show(
        delta("Look:"), tool("bash", command="ls -la"), result(lines), message("done", "b")
    )

    assert out == "Look:\ndone\n"
    assert "bash ls -la" in err
    assert "line 2" in err
    assert "line 3" not in err
    assert "2 more lines" in err


def test_a_call_without_a_main_argument_shows_its_input() -> None:
    """Unknown tools show their input as JSON, cut to a line."""
    _, err = show(tool("lookup", key={"deep": "x" * 500}))

    assert '{"key": {"deep": "xxx' in err
    assert "…" in err


def test_control_characters_do_nothing() -> None:
    """Neither model nor tool can move the cursor, set a title, or speak in our markup."""
    out, err = show(message("a\x1b[2Jb\u202ec"), result("\x9b31m[bold]x[/bold]\x07"))

    assert out == "a[2Jbc\n"
    assert "[bold]x[/bold]" in err
    assert "\x1b" not in err
    assert "\x9b" not in err


def test_errors_are_told_with_their_message() -> None:
    """A failed turn says why."""
    _, err = show({"type": "session.error", "error": {"type": "x", "message": "no credit"}})

    assert "no credit" in err


def test_json_lines_are_the_stored_events() -> None:
    """Each event is one line as it came; previews, which are not stored, are left out."""
    out = io.StringIO()
    view = JsonView(out=out)
    for event in (START, delta("x"), message("ünï\ncode")):
        view.event(event)

    assert [json.loads(line) for line in out.getvalue().splitlines()] == [message("ünï\ncode")]


def ended(*events: dict[str, Any], is_interrupted: bool = False) -> tuple[bool, int]:
    """Return (whether the last event ended the wait, the exit code)."""
    told = Result("m", is_interrupted=is_interrupted)
    has_ended = [told.note(event) for event in events]
    assert not any(has_ended[:-1])
    return has_ended[-1], told.exit_code


def idle(reason: str) -> dict[str, Any]:
    return {"type": "session.status_idle", "stop_reason": {"type": reason}}


def error(retry: str) -> dict[str, Any]:
    inner = {"type": "x", "message": "why", "retry_status": {"type": retry}}
    return {"type": "session.error", "error": inner}


def test_exit_codes_of_a_turn() -> None:
    """Only a turn that ended by itself without an error is 0; a retried error is none."""
    assert ended(idle("end_turn")) == (True, 0)
    assert ended(error("retrying"), idle("end_turn")) == (True, 0)
    assert ended(error("exhausted"), idle("end_turn")) == (True, 1)
    assert ended(idle("retries_exhausted")) == (True, 1)
    assert ended(idle("requires_action")) == (True, 1)
    assert ended({"type": "session.status_terminated"}) == (True, 1)
    assert ended(idle("end_turn"), is_interrupted=True) == (True, 130)
    assert ended(message("x")) == (False, 1)


def test_secrets_are_masked_longest_first() -> None:
    """A key that contains another leaves no rest; short values are left alone."""
    mask = Masker(["secret", "secret-longer", "", "abc"])

    assert mask("x secret-longer secret abc") == "x *** *** abc"


def test_harmless_keeps_text() -> None:
    """Line ends, tabs and all scripts stay as they are."""
    assert harmless("a\tb\r\nc é 漢 🙂") == "a\tb\nc é 漢 🙂"
