"""Thousands of requests drawn from the OpenAPI document, right and wrong ones (`make fuzz`).

Schemathesis draws them with a fixed seed and checks the answers: no 5xx but a documented 503, no undocumented
status, content types, headers and bodies as documented, errors in the envelope. The sidecar is a process of
its own whose child never becomes ready: that is a documented 503, and fast. Of an event stream the beginning
is read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.openapi_check import STREAM, check_answer, check_frame, document
from tests.sidecar_process import ROOT, processes_of
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.fuzz

SEED = int(os.environ.get("SEED", "1"))
CASES = int(os.environ.get("FUZZ_CASES", "55"))
"""Per operation, right and wrong ones each."""
KEY = "key-of-the-fuzzing-tests"
CHECKS: list[Any] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TIMEOUT_SECONDS = PATIENCE_SECONDS
SETTINGS = settings(
    max_examples=CASES,
    database=None,
    deadline=None,
    # Nothing is shrunk: the case that failed is shown as a curl command, and is small enough.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


NATIVE_STREAMS = ("/event", "/global/event")
"""opencode's own: its events are not in our document."""
FRAMES = 3
"""Of a stream, at most, comments included."""
FAKES = ROOT / "tests" / "fakes"


def operations(*, are_streams: bool = False) -> list[tuple[str, str]]:
    """Return (method, path) of every operation whose answer ends, or of the event streams."""
    return [
        (method.upper(), path)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
        if (STREAM in operation["responses"].get("200", {}).get("content", ())) is are_streams
    ]


class Target:
    """The sidecar, and resources in it that requests may hit."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: Counter[int] = Counter()
        self.frames: Counter[str] = Counter()
        """Of streams, by their paths."""
        self.session = requests.Session()
        self.session.headers["x-api-key"] = KEY
        self.schema = schemathesis.openapi.from_url(f"{url}/openapi.json")

    def create(self, path: str, **body: Any) -> dict[str, Any]:
        """Make a resource."""
        response = self.session.post(f"{self.url}{path}", json=body, timeout=TIMEOUT_SECONDS)
        assert response.status_code == 200, response.text
        made: dict[str, Any] = response.json()
        return made

    def path_parameters(self, path: str) -> dict[str, str]:
        """Return ids of new resources for a path."""
        if "{" not in path:
            return {}
        kind = path.split("/")[2]
        if kind == "models":
            return {"id": "openai/gpt-4o"}
        if kind == "agents":
            return {"id": self.create("/v1/agents", name="a", model="openai/gpt-4o")["id"]}
        if kind == "environments":
            return {"id": self.create("/v1/environments", name="e")["id"]}
        if kind == "vaults":
            vault = self.create("/v1/vaults", display_name="v")["id"]
            auth = {"type": "static_bearer", "mcp_server_url": "https://mcp.test/", "token": "t"}
            credential = self.create(f"/v1/vaults/{vault}/credentials", auth=auth)["id"]
            return {"id": vault, "credential": credential}
        session = self.create(
            "/v1/sessions",
            agent=self.create("/v1/agents", name="a", model="openai/gpt-4o")["id"],
            environment_id=self.create("/v1/environments", name="e")["id"],
            resources=[{"type": "github_repository", "url": "https://git.test/r.git"}],
        )
        threads = self.session.get(
            f"{self.url}/v1/sessions/{session['id']}/threads", timeout=TIMEOUT_SECONDS
        )
        return {
            "id": session["id"],
            "thread_id": threads.json()["data"][0]["id"],
            "resource": session["resources"][0]["id"],
        }


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A sidecar whose child never becomes ready."""
    with serving(tmp_path_factory.mktemp("fuzz"), FAKES / "child_never_ready.py") as running:
        yield running


@pytest.fixture(scope="module")
def target_with_child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A sidecar whose child sends events."""
    with serving(tmp_path_factory.mktemp("fuzz"), FAKES / "child_healthy.py") as running:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while (
            running.session.get(f"{running.url}/readyz", timeout=TIMEOUT_SECONDS).status_code != 200
        ):
            assert time.monotonic() < give_up_at, "the child is not ready"
            time.sleep(0.05)
        yield running


@contextmanager
def serving(root: Path, program: Path) -> Iterator[Target]:
    """Run a sidecar on the demo gateway with `program` in the place of opencode.

    Its log goes to a file: no pipe would be read meanwhile.
    """
    child = root / "opencode"
    child.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
    child.chmod(0o755)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATA_DIR": str(root / "data"),
        "RUNTIME_API_KEY": KEY,
        "SIDECAR_ADMIN_ENABLED": "0",
        "SIDECAR_CHILD_BINARY": str(child),
        "SIDECAR_CHILD_PROMPT_WAIT_SECONDS": "0.05",
        "SIDECAR_CHILD_START_TIMEOUT_SECONDS": "86400",
        "SIDECAR_CONFINEMENT": "off",
        "SIDECAR_HTTP_HEARTBEAT_SECONDS": "0.05",
        "SIDECAR_HTTP_LATE_READER_SECONDS": "3600",
        "SIDECAR_HTTP_REPLAY_PAUSE_SECONDS": "0",
        "SIDECAR_LOG_FORMAT": "json",
    }
    log = root / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "serve"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        yield Target(_url(process, log))
        assert process.poll() is None, log.read_text()[-4000:]
        assert '"unexpected error"' not in log.read_text()
    finally:
        process.kill()
        process.wait()
        for pid in processes_of(root / "data"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        for line in log.read_text().splitlines():
            if '"serving"' in line:
                return str(json.loads(line)["url"])
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), operations())
def test_an_operation_is_as_documented(
    target: Target, method: str, path: str, mode: GenerationMode
) -> None:
    """Whatever is sent to it, with ids that exist and ids that do not."""

    def check(case: schemathesis.Case) -> None:
        response = case.call(session=target.session, timeout=TIMEOUT_SECONDS)
        target.statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500 or response.status_code == 503, case.as_curl_command()
        headers = {name.lower(): values[0] for name, values in response.headers.items()}
        where = _path_of(response.request.url)
        check_answer(case.method, where, response.status_code, headers, response.content)

    try_cases(target, method, path, mode, check)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), operations(are_streams=True))
def test_a_stream_is_as_documented(
    target: Target, target_with_child: Target, method: str, path: str, mode: GenerationMode
) -> None:
    """Its status, its headers and its first frames; a refusal is an answer as any other."""
    asked = target_with_child if path in NATIVE_STREAMS else target

    def check(case: schemathesis.Case) -> None:
        request = case.as_transport_kwargs()
        with asked.session.request(**request, stream=True, timeout=TIMEOUT_SECONDS) as response:
            target.statuses[response.status_code] += 1
            is_stream = response.headers["content-type"].startswith(STREAM)
            body = b"" if is_stream else response.content
            headers = {name.lower(): value for name, value in response.headers.items()}
            check_answer(method, _path_of(response.url), response.status_code, headers, body)
            assert is_stream is (response.status_code == 200), case.as_curl_command()
            if is_stream:
                target.frames[path] += _check_frames(response, is_ours=asked is target)

    try_cases(asked, method, path, mode, check, begins_turn=True)
    assert mode is GenerationMode.NEGATIVE or target.frames[path]


def try_cases(
    target: Target,
    method: str,
    path: str,
    mode: GenerationMode,
    check: Callable[[schemathesis.Case], None],
    *,
    begins_turn: bool = False,
) -> None:
    """Draw requests of an operation, and have each checked."""
    operation = target.schema[path][method]
    if mode is GenerationMode.NEGATIVE and not _has_wrong_requests(method, path):
        mode = GenerationMode.POSITIVE
    real = target.path_parameters(path)
    wanted = {name: value for name, value in real.items() if f"{{{name}}}" in path}
    if begins_turn and wanted:
        hello = {"type": "user.message", "content": [{"type": "text", "text": "hello"}]}
        target.create(f"/v1/sessions/{wanted['id']}/events", events=[hello])
    cases = operation.as_strategy(generation_mode=mode)
    if wanted:
        known = operation.as_strategy(generation_mode=mode, path_parameters=wanted)
        cases = st.one_of(known, cases)
    seed(SEED)(SETTINGS(given(case=cases)(check)))()


def test_enough_was_tried(target: Target) -> None:
    """The run is as large as it is meant to be, and most kinds of answers occurred."""
    print(sum(target.statuses.values()), "cases:", dict(sorted(target.statuses.items())))
    assert sum(target.statuses.values()) >= 5000
    assert {200, 400, 404} <= target.statuses.keys()


def _path_of(url: str | None) -> str:
    return "/" + (url or "").split("/", 3)[3].partition("?")[0]


def _check_frames(response: requests.Response, *, is_ours: bool) -> int:
    """Read some frames; return how many of them were events."""
    received, count = b"", 0
    for chunk in response.iter_content(chunk_size=None):
        received += chunk
        if received.count(b"\n\n") >= FRAMES:
            break
    *frames, _ = received.decode("ascii" if is_ours else "utf-8").split("\n\n")
    for frame in frames:
        fields = dict(line.split(":", 1) for line in frame.split("\n"))
        if "data" not in fields:
            assert frame.startswith(":"), frame
            continue
        event = json.loads(fields["data"])
        count += 1
        if is_ours:
            assert fields["event"].strip() == event["type"]
            check_frame(event)
        else:
            assert (event.get("payload") or event)["type"]
    return count


def _has_wrong_requests(method: str, path: str) -> bool:
    """Whether there is anything in a request that could be wrong: a header may have any text."""
    operation = document()["paths"][path][method.lower()]
    places = {parameter["in"] for parameter in operation["parameters"]}
    return bool(places - {"header"}) or "requestBody" in operation
