"""Write the turn's tables and diagram into docs/architecture.md, between its markers.

They are made from `sidecar.managed.turns`, so they cannot say anything else than the code.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from sidecar.managed.turns.machine import TRANSITIONS
from sidecar.managed.turns.phases import Cause, Phase
from sidecar.managed.turns.state import TRANSITIONS as STATES

ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- turn -->\n", "<!-- /turn -->\n"


def with_turn(text: str) -> str:
    """Return the document's text with tables and diagram as the code has them now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [_diagram(), _moves(), _phases(), _causes(), _states()]
    return f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n\n{END}{after}"


def _diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> PREPARING", "    [*] --> RESENDING"]
    for phase, row in TRANSITIONS.items():
        causes: defaultdict[Phase, list[str]] = defaultdict(list)
        for cause, to in row.items():
            causes[to].append(cause.name.lower())
        lines += [
            f"    {phase.name} --> {to.name}: {', '.join(names)}" for to, names in causes.items()
        ]
        if not row:
            lines.append(f"    {phase.name} --> [*]")
    return "\n".join([*lines, "```"])


def _moves() -> str:
    phases = [phase for phase, row in TRANSITIONS.items() if row]
    lines = [
        "| | " + " | ".join(phase.name for phase in phases) + " |",
        "|---" * (len(phases) + 1) + "|",
    ]
    for cause in Cause:
        cells = [TRANSITIONS[phase].get(cause) for phase in phases]
        lines.append(f"| {cause.name} | " + " | ".join(c.name if c else "" for c in cells) + " |")
    return "\n".join(lines)


def _phases() -> str:
    return _meanings("Phase", [(phase.name, phase.value) for phase in Phase])


def _causes() -> str:
    return _meanings("Cause", [(cause.name, cause.value) for cause in Cause])


def _states() -> str:
    rows = [(state, ", ".join(sorted(after)) or "nothing") for state, after in STATES.items()]
    return _meanings("State of the session", rows, "May be followed by")


def _meanings(heading: str, rows: list[tuple[str, str]], second: str = "Meaning") -> str:
    lines = [f"| {heading} | {second} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {meaning} |" for name, meaning in rows)])


if __name__ == "__main__":
    ARCHITECTURE.write_text(with_turn(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")
