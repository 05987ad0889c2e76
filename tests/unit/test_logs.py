"""Logs: secrets are masked in whatever form a line takes."""

import base64
import logging

import pytest
import structlog

from sidecar import logs
from sidecar.config import LogSettings
from sidecar.masking import IN_USE

SECRET = "sk-secret-of-the-gateway"
USED = "token-that-was-decrypted"


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


def test_secrets_in_urls_and_in_use_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever they stand in an entry: also in lists, and in base64."""
    logs.configure(LogSettings(format="json"), secrets=[SECRET])
    IN_USE.add(USED)
    basic = base64.b64encode(f"anybody:{USED}".encode()).decode()
    structlog.get_logger("test").warning(
        "refused", urls=["https://u:pw@host/x?token=abc"], said={"header": f"Basic {basic}"}
    )
    logging.getLogger("library").warning("GET https://host/x?X-Amz-Signature=abc&b=2")
    written = capsys.readouterr().out
    assert "https://***@host/x?token=***" in written
    assert "https://host/x?X-Amz-Signature=***&b=2" in written
    assert basic not in written
