"""Has HTML converted by a program of its own, see `sidecar.web.page_text`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Literal

from sidecar.errors import WebError

PageFormat = Literal["markdown", "text", "html"]

_PROGRAM = Path(__file__).with_name("page_text.py")
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")
"""What a Python needs to find itself. Keys of ours are in the environment, too."""


async def page_text(page: bytes, *, kind: PageFormat, url: str, charset: str | None) -> str:
    """Return an HTML page as Markdown or text. Raises WebError when it is beyond the program's bounds."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # nothing is to be imported from the program's folder
        str(_PROGRAM),
        kind,
        url,
        charset or "",
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        text, _ = await process.communicate(page)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise WebError("the page cannot be converted: it is too large or too deeply nested")
    return text.decode("utf-8", "replace")
