"""Trace contexts as callers send them, and what is imported for them."""

import subprocess
import sys

import pytest

from sidecar.tracing import PassingTracer, read_traceparent, trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"

_PROBE = """
import sys
from sidecar.app import running
from sidecar.config import TracingSettings
from sidecar.tracing import make_tracer
make_tracer(TracingSettings(endpoint={endpoint!r}))
print(sorted(name for name in sys.modules if name.split(".")[0] == "opentelemetry")[:1])
"""


def test_a_valid_header_is_carried_unchanged() -> None:
    """What the specification's example sends comes out as it went in."""
    assert read_traceparent(VALID) == VALID
    assert read_traceparent(f"  {VALID} ") == VALID
    assert PassingTracer().start("turn", parent=VALID).traceparent == VALID
    assert trace_id_of(VALID) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "junk",
        VALID.upper(),
        VALID + "-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"{VALID}\r\nx-evil: 1",
    ],
)
def test_a_broken_header_is_dropped(value: str | None) -> None:
    """An invalid context begins no trace and is not passed on."""
    assert read_traceparent(value) is None


def test_a_later_version_is_understood_as_far_as_it_is_known() -> None:
    """Of a version with more fields the known four are handed on as version 00."""
    assert read_traceparent(f"01-{TRACE}-{SPAN}-01-what-comes-later") == VALID


@pytest.mark.parametrize(
    ("endpoint", "imported"), [(None, "[]"), ("http://127.0.0.1:9", "['opentelemetry']")]
)
def test_opentelemetry_is_imported_only_for_an_endpoint(
    endpoint: str | None, imported: str
) -> None:
    """The whole application loads none of it unless an endpoint is configured."""
    answer = subprocess.run(
        [sys.executable, "-c", _PROBE.format(endpoint=endpoint)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.splitlines()[-1] == imported


def test_a_missing_extra_is_a_warning_not_an_end() -> None:
    """With an endpoint but without the packages the sidecar starts and says what to install."""
    hide = "import sys; sys.modules['opentelemetry'] = None\n"
    answer = subprocess.run(
        [sys.executable, "-c", hide + _PROBE.format(endpoint="http://127.0.0.1:9")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "opencode-sidecar[otel]" in answer.stdout
