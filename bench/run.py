"""Runs the benchmarks: `python -m bench.run [CASE ...]`, or `make bench`.

A case is a module in bench/cases with a `TITLE` and

    async def measure(*, quick: bool) -> list[Row]

which starts what it needs, measures both sides in the same run, and leaves nothing running. `quick`
asks for as few runs as still prove that the case works. Only a complete, unhurried run writes
bench/RESULTS.md. The exit status is 1 when a target was missed.
"""

from __future__ import annotations

import asyncio
import datetime
import importlib
import logging
import pkgutil
import signal
from pathlib import Path
from typing import Annotated, Protocol, cast

import structlog
import typer
from rich.console import Console

from bench import machine, report
from bench.report import Row, Section

_CASES_DIR = Path(__file__).parent / "cases"


class Case(Protocol):
    """What a module in bench/cases offers."""

    TITLE: str

    async def measure(self, *, quick: bool) -> list[Row]:
        """Return the rows of this case, in the order of the report."""


def case_names() -> list[str]:
    """Return the cases there are, in the order in which they run."""
    return sorted(module.name for module in pkgutil.iter_modules([str(_CASES_DIR)]))


def main(
    cases: Annotated[
        list[str] | None, typer.Argument(help="Cases to run; all without any.")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option(help="Few runs: does each case still work?")] = False,
) -> None:
    """Measure, print a table per case, and write bench/RESULTS.md."""
    known = case_names()
    chosen = cases or known
    if not chosen or (unknown := set(chosen) - set(known)):
        wrong = ", ".join(sorted(unknown)) if chosen else "there are none"
        raise typer.BadParameter(f"no such case: {wrong}; known: {', '.join(known) or 'none'}")
    # Stopped from outside, a case must still end what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = Console()
    here = machine.describe()
    console.print(str(here))
    sections = []
    for name in chosen:
        case = cast("Case", importlib.import_module(f"bench.cases.{name}"))
        section = Section(case.TITLE, asyncio.run(case.measure(quick=quick)))
        report.print_section(section, console)
        sections.append(section)
    if not quick and chosen == known:
        day = datetime.datetime.now(tz=datetime.UTC).date()
        report.RESULTS_FILE.write_text(report.markdown(sections, machine=here, day=day))
        console.print(f"written to {report.RESULTS_FILE}")
    missed = [row.what for section in sections for row in section.missed]
    if missed:
        console.print(f"[red]targets missed:[/red] {'; '.join(missed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
