"""`opencode-sidecar doctor --compat`: does this opencode behave as the sidecar is built on?"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from sidecar.commands import output
from sidecar.commands.gateway import as_command_error
from sidecar.compat.bench import open_bench
from sidecar.compat.facts import Result, run_checks
from sidecar.config import ChildSettings
from sidecar.errors import SidecarError


def main(*, as_json: bool, is_verbose: bool) -> int:
    """Check every fact; return 1 when one does not hold. Raises CommandError when opencode does not start."""
    output.quiet_logs(is_verbose=is_verbose)
    results = asyncio.run(_examine(as_json=as_json))
    failed = sum(result.problem is not None for result in results)
    if as_json:
        output.print_json({"failed": failed, "facts": [asdict(result) for result in results]})
    elif failed:
        output.stdout().print(
            f"{failed} of {len(results)} facts do not hold: read docs/upgrade.md before you use it"
        )
    else:
        output.stdout().print(f"all {len(results)} facts hold")
    return output.EXIT_FAILED if failed else output.EXIT_OK


async def _examine(*, as_json: bool) -> list[Result]:
    results = []
    # Of the settings only the binary matters: nothing of a running service is touched.
    settings = ChildSettings(binary=ChildSettings().binary)
    with tempfile.TemporaryDirectory(
        prefix="opencode-sidecar-compat-", ignore_cleanup_errors=True
    ) as scratch:
        try:
            async with open_bench(Path(scratch), settings) as bench:
                async for result in run_checks(bench):
                    results.append(result)
                    if not as_json:
                        _print(result)
        except SidecarError as error:
            raise as_command_error(error) from error
    return results


def _print(result: Result) -> None:
    sign = "[green]✓[/green]" if result.problem is None else "[red]✗[/red]"
    console = output.stdout()
    console.print(f"{sign} {escape(result.fact)} [dim]{result.seconds:.1f} s[/dim]")
    if result.problem is not None:
        console.print(f"  [red]but {escape(result.problem)}[/red] ({result.name})")
