"""Waiting for what has to happen, with one generous bound: no test leans on the machine's speed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
"""How long a test waits for one thing, which takes seconds on a quiet machine. Less than pytest's time-out,
which does not say what was missing."""
_POLL_SECONDS = 0.02


def patience() -> asyncio.Timeout:
    """Return the bound for a block that waits for an event: `async with patience(): await ready.wait()`."""
    return asyncio.timeout(PATIENCE_SECONDS)


async def until(
    condition: Callable[[], T | Awaitable[T]], *, seconds: float = PATIENCE_SECONDS
) -> T:
    """Call the condition again and again until it returns something true, and return that.

    For what sends no event, such as another process. Raises AssertionError with the condition's source
    when it never holds.
    """
    result: T | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                returned = condition()
                result = await returned if inspect.isawaitable(returned) else returned
                if result:
                    return result
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(
            f"not within {seconds} s, last {result!r}: {_source_of(condition)}"
        ) from None


def _source_of(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
