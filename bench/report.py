"""Measurements as a table in the terminal and in bench/RESULTS.md, each beside what it must reach."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from bench.machine import Machine

RESULTS_FILE = Path(__file__).parent / "RESULTS.md"

_HEADINGS = ("What", "Measured", "Against", "Must reach", "Reached")


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. `against` is what was measured beside it in the same run; a row without
    `must_reach` only informs, and then `reached` is left None."""

    what: str
    telemetry: str
    against: str = ""
    must_reach: str = ""
    reached: bool | None = None

    def __post_init__(self) -> None:
        if bool(self.must_reach) != (self.reached is not None):
            raise ValueError(f"{self.what}: a target and whether it was reached go together")

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = {None: "", True: "yes", False: "**no**"}[self.reached]
        return (self.what, self.telemetry, self.against, self.must_reach, verdict)


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one case, under its title."""

    title: str
    rows: list[Row] = field(default_factory=list)

    @property
    def missed(self) -> list[Row]:
        """The rows whose target was not reached."""
        return [row for row in self.rows if row.reached is False]


def print_section(section: Section, console: Console) -> None:
    """Print one section as a table."""
    table = RichTable(*_HEADINGS, title=section.title, title_justify="left")
    for row in section.rows:
        table.add_row(*(cell.strip("*") for cell in row.cells))
    console.print(table)


def markdown(sections: Iterable[Section], *, machine: Machine, day: datetime.date) -> str:
    """Return the whole report."""
    parts = [
        "# Benchmark results",
        f"Written by `make bench` on {day.isoformat()}. Machine: {machine}.",
        "Columns of one row were measured in the same run, side by side.",
    ]
    for section in sections:
        lines = [_line(_HEADINGS), _line("---" for _ in _HEADINGS)]
        lines += [_line(row.cells) for row in section.rows]
        parts += [f"## {section.title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
