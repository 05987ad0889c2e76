"""Ids and paths that name nothing, and some that try to name something else."""

from typing import Any

import pytest

from tests.integration.bad_input.server import (
    UNKNOWN,
    Server,
    speak,
)


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize(
    "id_of",
    [
        lambda known: known,
        lambda known: known.lower(),
        lambda known: f"{known}%00",
        lambda known: f"..%2f{known}",
        lambda known: "..%2F..%2Fetc%2Fpasswd",
        lambda known: "%2e%2e",
        lambda known: "%00",
        lambda known: "x" * 4000,
        lambda known: "%F0%9F%A6%84",
        lambda known: "%27%20OR%201%3D1%20--",
        lambda known: "%FF%FE",
    ],
    ids=[
        "unknown",
        "case",
        "nul",
        "up",
        "passwd",
        "dots",
        "only-nul",
        "long",
        "emoji",
        "sql",
        "raw",
    ],
)
async def test_ids_that_name_nothing(server: Server, kind: str, id_of: Any) -> None:
    """An unknown or malformed id is a 404 that repeats a short form of it, on reads and writes alike."""
    path = f"/v1/{kind}/{id_of(UNKNOWN[kind])}"
    for method in ("GET", "POST"):
        status, headers, body = await speak(server, method, path, b"{}")
        assert status == 404, (method, body)
        assert body["error"]["type"] == "not_found_error"
        assert len(body["error"]["message"]) < 300
        assert headers["request-id"] == body["request_id"]


@pytest.mark.parametrize(
    "tail", ["/events", "/events/stream", "/threads", "/threads/sthr_x/events"]
)
async def test_reading_below_a_missing_session(server: Server, tail: str) -> None:
    """Lists and streams of a session that does not exist are a JSON 404, not an open stream."""
    for session_id in (UNKNOWN["sessions"], "..", "%00"):
        status, _, body = await speak(server, "GET", f"/v1/sessions/{session_id}{tail}")
        assert (status, body["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize(
    "path",
    ["/v1/deployments", "/v1/messages", "/v1/nothing", "/v1/sessions/x/work", "/", "/v1/../etc"],
)
async def test_routes_that_are_not_there(server: Server, path: str) -> None:
    """What is not offered answers 404 in the envelope, never a page of HTML."""
    status, headers, body = await speak(server, "GET", path)
    assert status == 404
    assert headers["content-type"].startswith("application/json")
    assert body["error"]["type"] == "not_found_error"
