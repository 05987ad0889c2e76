"""Logs: secrets are masked in whatever form a line takes."""

import logging

import pytest
import structlog

from sidecar import logs
from sidecar.config import LogSettings

SECRET = "sk-secret-of-the-gateway"


@pytest.fixture(autouse=True)
def _undo() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_secret(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither its message nor the variables of its frames, on a terminal as in JSON."""
    logs.configure(LogSettings(format=form), secrets=[SECRET])

    def refuse() -> None:
        in_a_frame = f"Bearer {SECRET}"
        raise RuntimeError(f"refused: {in_a_frame}")

    try:
        refuse()
    except RuntimeError as error:
        structlog.get_logger("test").error("broke", exc_info=error)
        logging.getLogger("library").exception("broke too")
    written = capsys.readouterr().out
    assert written.count("RuntimeError: refused: Bearer ***") == 2
    assert SECRET not in written
