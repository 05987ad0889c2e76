"""The `serve` command: run until a signal, or until the child cannot be kept running."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import structlog

from sidecar import banner, logs
from sidecar.app import RunningSidecar, running
from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.loop_watch import WatchedLoop
from sidecar.masking import masked_urls
from sidecar.memory import keep_large_apart
from sidecar.process_hardening import close_to_same_user
from sidecar.process_limits import raise_descriptor_limit
from sidecar.stop_signals import stop_signals, without_terminal

EXIT_OK = 0
EXIT_SETTINGS = 2
EXIT_CHILD_FAILED = 3

_log = structlog.get_logger(__name__)


def main() -> int:
    """Serve; return the process's exit code."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(f"opencode-sidecar: {masked_urls(error.message)}", file=sys.stderr)  # noqa: T201  # for people
        return EXIT_SETTINGS
    logs.configure(settings.log, secrets=settings.secret_values())
    close_to_same_user()
    raise_descriptor_limit()
    keep_large_apart()
    try:
        with asyncio.Runner(
            loop_factory=lambda: WatchedLoop(settings.log.loop_stall_seconds)
        ) as runner:
            return runner.run(serve(settings))
    except SettingsError as error:
        print(f"opencode-sidecar: {masked_urls(error.message)}", file=sys.stderr)  # noqa: T201  # for people
        return EXIT_SETTINGS


async def serve(settings: Settings) -> int:
    """Serve until a signal; a child in a crash loop ends the process with an error.

    A signal ends a start that is not complete as well, and what is open by then is closed.

    Raises SettingsError for what cannot be opened as configured, and for an executable that is no opencode.
    """
    stop = asyncio.Event()
    starting = asyncio.current_task()

    def request_stop() -> None:
        if starting is not None and not stop.is_set():
            starting.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        is_hang_up = number == signal.SIGHUP
        loop.add_signal_handler(
            number, without_terminal(request_stop) if is_hang_up else request_stop
        )
    try:
        async with running(settings) as sidecar:
            starting = None
            return await _serve(sidecar, settings, stop)
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        _log.info("stopped by a signal while starting")
        return EXIT_OK


async def _serve(sidecar: RunningSidecar, settings: Settings, stop: asyncio.Event) -> int:
    """Serve until `stop`, or until the child is given up; return the exit code."""
    gc.freeze()  # what is loaded by now is not looked at again; see sidecar.start
    gc.enable()
    _log.info("serving", url=sidecar.url, demo_gateway=sidecar.gateway.is_demo)
    if sys.stderr.isatty() or sidecar.gateway.is_demo:
        print(_banner(sidecar, settings), file=sys.stderr, flush=True)  # noqa: T201  # for people
    failed = asyncio.ensure_future(sidecar.supervisor.failed.wait())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        failed.cancel()
        stopped.cancel()
    if stop.is_set():
        _log.info("stopping on a signal")
        return EXIT_OK
    if sidecar.supervisor.is_misconfigured:
        raise SettingsError(sidecar.supervisor.failure)
    _log.critical("opencode cannot be kept running", reason=sidecar.supervisor.failure)
    return EXIT_CHILD_FAILED


def _banner(sidecar: RunningSidecar, settings: Settings) -> str:
    snapshot = sidecar.catalogue.snapshot
    return banner.text(
        url=sidecar.url,
        gateway_url=None if sidecar.gateway.is_demo else sidecar.gateway.url,
        model=next(iter(snapshot.listed), None) if snapshot else None,
        has_key=settings.http.runtime_api_key is not None,
        has_console=settings.console.is_enabled,
    )
