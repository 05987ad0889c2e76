"""`opencode-sidecar doctor`: each line is ok, a warning or a failure, with what to do about it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from sidecar.commands import output
from sidecar.commands.doctor_boot import BootChecks
from sidecar.commands.doctor_checks import Check, Finding, failure, machine_checks, ok, warning
from sidecar.commands.doctor_gateway import GatewayChecks
from sidecar.commands.gateway import open_gateway
from sidecar.config import Settings, trimmed_variables
from sidecar.errors import SettingsError
from sidecar.proxies import Proxies

_SIGNS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "failure": "[red]✗[/red]"}
_NAME_WIDTH = 18

Outcome = tuple[Check, Finding, float]
"""A check, what it found, and the seconds it took."""


def main(
    *, with_completion: bool, with_turn: bool, is_quick: bool, as_json: bool, is_verbose: bool
) -> int:
    """Run the command; return 1 if any check failed."""
    output.quiet_logs(is_verbose=is_verbose)
    return asyncio.run(
        _examine(
            with_completion=with_completion, with_turn=with_turn, is_quick=is_quick, as_json=as_json
        )
    )


async def _examine(*, with_completion: bool, with_turn: bool, is_quick: bool, as_json: bool) -> int:
    report = _Report(None if as_json else output.stdout())
    try:
        settings = Settings.load()
        Proxies.from_environment()
    except SettingsError as error:
        wrong = failure(error.message, "correct the variable; `opencode-sidecar config` lists all")
        report.add(_named("settings"), wrong, 0.0)
        return report.close()
    report.mask = output.Masker(settings.secret_values())
    report.add(_named("settings"), _settings_finding(), 0.0)
    with tempfile.TemporaryDirectory(
        prefix="opencode-sidecar-doctor-", ignore_cleanup_errors=True
    ) as scratch:
        async with open_gateway(settings.gateway) as access:
            gateway = GatewayChecks(access, settings)
            boot = BootChecks(access, gateway, settings, Path(scratch))
            checks = [
                *machine_checks(settings),
                *gateway.all(with_completion=with_completion),
                *boot.all(is_quick=is_quick, with_turn=with_turn),
            ]
            async for check, finding, seconds in _run(checks, report):
                report.add(check, finding, seconds)
    return report.close()


async def _run(checks: Iterable[Check], report: _Report) -> AsyncIterator[Outcome]:
    """Run them one after the other, each within its bound; a broken check is a failure, not the end."""
    for check in checks:
        began = time.monotonic()
        with report.busy(check.name):
            try:
                async with asyncio.timeout(check.bound_seconds):
                    finding = await check.run()
            except TimeoutError:
                finding = failure(
                    f"not finished within {check.bound_seconds:g} s",
                    "see whether the machine, the disk or the network is overloaded",
                )
            except Exception as error:  # the remaining checks are still worth running
                finding = failure(
                    f"the check itself broke: {type(error).__name__}: {error}",
                    "please report this line",
                )
        yield check, finding, time.monotonic() - began


class _Report:
    """Shows findings as they come, or collects them for JSON when there is no console."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._progress = output.stderr()
        self._lines: list[dict[str, Any]] = []
        self.mask = output.Masker(())

    def busy(self, name: str) -> Any:
        """Return a context in which the terminal shows that the check runs."""
        return self._progress.status(f"checking {name}")

    def add(self, check: Check, finding: Finding, seconds: float) -> None:
        """Take one finding; secrets are masked here, whatever a check put into its message."""
        line = {"name": check.name, **asdict(finding), "seconds": round(seconds, 3)}
        line = {k: self.mask(v) if isinstance(v, str) else v for k, v in line.items()}
        self._lines.append(line)
        if self._console is None:
            return
        text = escape(output.harmless(line["message"]))
        self._console.print(
            f"{_SIGNS[line['status']]} {line['status']:<8}{line['name']:<{_NAME_WIDTH}}{text}",
            soft_wrap=True,
        )
        if line["fix"]:
            indent = " " * (10 + _NAME_WIDTH)
            self._console.print(f"{indent}[dim]→ {escape(line['fix'])}[/dim]", soft_wrap=True)

    def close(self) -> int:
        """Print the end; return the exit code."""
        counts = Counter(line["status"] for line in self._lines)
        told = {status: counts[status] for status in _SIGNS}
        if self._console is None:
            is_ok = not counts["failure"]
            output.print_json({"ok": is_ok, "counts": told, "checks": self._lines})
        else:
            words = ", ".join(f"{count} {status}" for status, count in told.items())
            self._console.print(f"\n{words}")
        return output.EXIT_FAILED if counts["failure"] else output.EXIT_OK


def _settings_finding() -> Finding:
    if trimmed := trimmed_variables():
        return warning(
            f"{', '.join(trimmed)}: blanks or line breaks around the value are ignored",
            "write it without them: `printf %s` instead of `echo`, `base64 -w0` for a Kubernetes secret",
        )
    return ok("all variables are known and valid")


def _named(name: str) -> Check:
    async def nothing() -> Finding:
        return ok("")

    return Check(name, nothing)
