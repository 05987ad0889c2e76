"""Register a running sidecar with LAP, so that LAP offers it as a runtime. Safe to run again.

Waits until both answer `GET /health`, then creates the runtime, or updates it where its alias exists:

    POST {LAP_URL}/api/runtime-harnesses            {alias, api_spec, api_base, api_key}
    PUT  {LAP_URL}/api/runtime-harnesses/{alias}    {api_base, api_key}

Environment: LAP_URL, LAP_MASTER_KEY, RUNTIME_API_BASE (as LAP reaches the sidecar, without `/v1`),
RUNTIME_API_KEY (the sidecar's), RUNTIME_ALIAS (default `local-opencode`), RUNTIME_API_SPEC (default
`claude_managed_agents`) and REGISTER_WAIT_SECONDS (default 120). Standard library only: it is a job
in the sidecar's own image. Exit codes: 0 registered, 1 LAP refused or nobody answered, 2 settings.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_ALIAS = re.compile(r"[A-Za-z0-9_-]+")
_RESERVED = frozenset({"claude_managed_agents", "cursor", "gemini_antigravity"})
"""LAP's names for its built-in runtimes."""
_PR_SET_DUMPABLE = 4
_REQUEST_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 1.0
_SHOWN_BODY_CHARACTERS = 300


class RegistrationError(Exception):
    """Why it did not work, in a sentence; `exit_code` tells settings from peers."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Registration:
    """What is registered where. The keys are never printed."""

    lap_url: str
    lap_key: str
    alias: str
    api_spec: str
    api_base: str
    api_key: str
    wait_seconds: float

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Registration:
        """Read and check the environment. Raises RegistrationError that names the variable."""
        # A Secret made from a file often ends in a newline, which no header and no URL may have.
        environ = {name: value.strip() for name, value in environ.items()}
        names = ("LAP_URL", "LAP_MASTER_KEY", "RUNTIME_API_BASE", "RUNTIME_API_KEY")
        if missing := [name for name in names if not environ.get(name)]:
            raise RegistrationError(f"not set: {', '.join(missing)}", exit_code=2)
        alias = environ.get("RUNTIME_ALIAS") or "local-opencode"
        if not _ALIAS.fullmatch(alias) or alias in _RESERVED:
            raise RegistrationError(
                f"RUNTIME_ALIAS={alias}: letters, digits, '-' and '_' only, and none of LAP's own "
                f"names ({', '.join(sorted(_RESERVED))})",
                exit_code=2,
            )
        wait = environ.get("REGISTER_WAIT_SECONDS") or "120"
        try:
            wait_seconds = float(wait)
        except ValueError:
            raise RegistrationError(
                f"REGISTER_WAIT_SECONDS={wait}: not a number", exit_code=2
            ) from None
        return cls(
            lap_url=_base_url("LAP_URL", environ),
            lap_key=environ["LAP_MASTER_KEY"],
            alias=alias,
            api_spec=environ.get("RUNTIME_API_SPEC") or "claude_managed_agents",
            # LAP appends /v1 itself
            api_base=_base_url("RUNTIME_API_BASE", environ).removesuffix("/v1"),
            api_key=environ["RUNTIME_API_KEY"],
            wait_seconds=wait_seconds,
        )


def _base_url(name: str, environ: Mapping[str, str]) -> str:
    url = environ[name].rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise RegistrationError(f"{name}={url}: must begin with http:// or https://", exit_code=2)
    return url


def register(registration: Registration, say: Callable[[str], None]) -> None:
    """Create the runtime or update it. Raises RegistrationError."""
    deadline = time.monotonic() + registration.wait_seconds
    for name, url in (("LAP", registration.lap_url), ("the runtime", registration.api_base)):
        _wait_until_well(name, f"{url}/health", deadline, say)

    harnesses = f"{registration.lap_url}/api/runtime-harnesses"
    access = {"api_base": registration.api_base, "api_key": registration.api_key}
    names = {"alias": registration.alias, "api_spec": registration.api_spec}
    created, why_not_created = _send("POST", harnesses, registration.lap_key, names | access)
    if created:
        say(f"registered {registration.api_base} as {registration.alias}")
        return
    updated, why_not_updated = _send(
        "PUT", f"{harnesses}/{registration.alias}", registration.lap_key, access
    )
    if not updated:
        raise RegistrationError(
            f"LAP neither created the runtime ({why_not_created}) nor updated it ({why_not_updated})"
        )
    say(f"updated {registration.alias}: {registration.api_base}")


def _wait_until_well(name: str, url: str, deadline: float, say: Callable[[str], None]) -> None:
    is_announced = False
    while True:
        is_well, reason = _send("GET", url)
        if is_well:
            return
        if time.monotonic() >= deadline:
            raise RegistrationError(f"{name} does not answer at {url}: {reason}")
        if not is_announced:
            say(f"waiting for {name} at {url}: {reason}")
            is_announced = True
        time.sleep(_POLL_SECONDS)


def _send(
    method: str, url: str, key: str | None = None, body: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Return whether the answer was a 2xx, and else what it was."""
    request = urllib.request.Request(url, method=method)  # noqa: S310  # the scheme was checked
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_SECONDS):  # noqa: S310
            return True, ""
    except urllib.error.HTTPError as error:
        shown = error.read(_SHOWN_BODY_CHARACTERS).decode(errors="replace").strip()
        return False, f"{error.code} {shown}".strip()
    except urllib.error.URLError as error:
        return False, str(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return False, str(error) or type(error).__name__


def close_to_same_user() -> None:
    """Close this process, whose environment has keys, to others of its user (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def main() -> int:
    """Run as a job; return the exit code."""

    def say(text: str) -> None:
        print(f"register: {text}", flush=True)  # noqa: T201  # the job's log

    try:
        register(Registration.from_environment(os.environ), say)
    except RegistrationError as error:
        say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    close_to_same_user()
    sys.exit(main())
