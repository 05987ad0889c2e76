"""Models as rows: from the catalogue, from any runtime's list; as a table, as JSON. Pure but for printing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sidecar.commands.output import harmless
from sidecar.gateway.merge import CatalogueEntry
from sidecar.sdk import ModelInfo

_PER_MILLION = 1_000_000
_SHORT_SOURCES = {
    "model_info": ("info", "/v1/model/info"),
    "model_group_info": ("group", "/model_group/info"),
    "models": ("list", "/v1/models"),
    "override": ("override", "SIDECAR_GATEWAY_OVERRIDES"),
    "sidecar": ("sidecar", "the sidecar, which does not say where it has it from"),
}
"""Source -> its name in the table, and in the legend."""
_UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One model. None is unknown; costs are USD per token; `sources` names the source of each known field."""

    runtime: str
    id: str
    display_name: str
    listed: bool = True
    hidden_because: str | None = None
    mode: str | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: tuple[str, ...] | None = None
    supports_tools: bool | None = None
    supports_reasoning: bool | None = None
    supports_structured_outputs: bool | None = None
    reasoning_efforts: tuple[str, ...] = ()
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_entry(cls, entry: CatalogueEntry) -> Row:
        """Make the row of a catalogue entry."""
        return cls(
            runtime="opencode",
            id=entry.id,
            display_name=entry.display_name,
            listed=entry.listed,
            hidden_because=entry.hidden_because,
            mode=entry.mode,
            max_input_tokens=entry.max_input_tokens,
            max_output_tokens=entry.max_output_tokens,
            input_modalities=entry.input_modalities
            if "input_modalities" in entry.sources
            else None,
            supports_tools=entry.supports_tools,
            supports_reasoning=entry.supports_reasoning,
            supports_structured_outputs=entry.supports_structured_outputs,
            reasoning_efforts=entry.reasoning_efforts,
            input_cost_per_token=entry.input_cost_per_token,
            output_cost_per_token=entry.output_cost_per_token,
            sources=dict(entry.sources),
        )

    @classmethod
    def of_info(cls, info: ModelInfo, *, source: str) -> Row:
        """Make the row of a model that a runtime listed."""
        able = info.capabilities
        known: dict[str, Any] = {
            "max_input_tokens": info.max_input_tokens,
            "max_output_tokens": info.max_tokens,
        }
        if able is not None:
            inputs = {"image": able.image_input, "pdf": able.pdf_input}
            efforts = {
                name: getattr(able.effort, name) for name in ("low", "medium", "high", "max")
            }
            known |= {
                "input_modalities": ("text", *(kind for kind, a in inputs.items() if a.supported)),
                "supports_reasoning": able.thinking.supported,
                "supports_structured_outputs": able.structured_outputs.supported,
                "reasoning_efforts": tuple(name for name, a in efforts.items() if a.supported),
            }
        known = {name: value for name, value in known.items() if value not in (None, ())}
        sources = dict.fromkeys(["display_name", *known], source)
        return cls(
            runtime=info.runtime,
            id=info.id,
            display_name=info.display_name,
            sources=sources,
            **known,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the documented JSON object."""
        return asdict(self)


def print_listed(console: Console, rows: Sequence[Row], *, has_runtimes: bool) -> None:
    """Print the table of models to choose from, and what its abbreviations mean."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    if has_runtimes:
        table.add_column("RUNTIME")
    table.add_column("MODEL ID", no_wrap=True, style="cyan")  # to be copied
    table.add_column("NAME", overflow="fold")
    table.add_column("CONTEXT", justify="right")
    table.add_column("OUTPUT", justify="right")
    table.add_column("ABILITIES", overflow="fold")
    table.add_column("USD PER MTOK IN/OUT", justify="right", overflow="fold")
    for row in rows:
        cells = [
            _shown(row.id),
            _shown(row.display_name),
            _sourced(row, "max_input_tokens", _count(row.max_input_tokens)),
            _sourced(row, "max_output_tokens", _count(row.max_output_tokens)),
            _abilities(row),
            _sourced(row, "input_cost_per_token", _price(row)),
        ]
        table.add_row(*([_shown(row.runtime)] if has_runtimes else []), *cells)
    console.print(table)
    used = {source for row in rows for source in row.sources.values()}
    legend = [f"{short} = {long}" for key, (short, long) in _SHORT_SOURCES.items() if key in used]
    if legend:
        console.print(f"[dim]{'; '.join(legend)}; {_UNKNOWN} = not known[/dim]", soft_wrap=True)


def print_hidden(console: Console, rows: Sequence[Row]) -> None:
    """Print the models that are left out of the list and why; they may still be named."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("HIDDEN MODEL ID", overflow="fold", style="cyan")
    table.add_column("MODE")
    table.add_column("HIDDEN BECAUSE", overflow="fold")
    for row in rows:
        table.add_row(
            _shown(row.id), _shown(row.mode or _UNKNOWN), _shown(row.hidden_because or _UNKNOWN)
        )
    console.print(table)


def _shown(text: str) -> str:
    return escape(harmless(text))


def _sourced(row: Row, name: str, text: str) -> str:
    source = row.sources.get(name)
    if source is None or text == _UNKNOWN:
        return text
    short = _SHORT_SOURCES[source][0] if source in _SHORT_SOURCES else source
    return f"{text} [dim]{_shown(short)}[/dim]"


def _count(tokens: int | None) -> str:
    return _UNKNOWN if tokens is None else f"{tokens:,}"


def _price(row: Row) -> str:
    prices = (row.input_cost_per_token, row.output_cost_per_token)
    if prices == (None, None):
        return _UNKNOWN
    return "/".join("?" if p is None else f"{p * _PER_MILLION:.4g}" for p in prices)


def _abilities(row: Row) -> str:
    """Name what it can do; what it is known not to do is left out, what is unknown is a dash."""
    named = {
        "tools": row.supports_tools,
        "reasoning": row.supports_reasoning,
        "json": row.supports_structured_outputs,
    }
    words = [word for word, is_supported in named.items() if is_supported]
    words += [kind for kind in row.input_modalities or () if kind != "text"]
    source = next(
        (row.sources[n] for n in ("supports_tools", "input_modalities") if n in row.sources), None
    )
    text = " ".join(words) or _UNKNOWN
    short = _SHORT_SOURCES.get(source or "", (source, ""))[0]
    return f"{_shown(text)} [dim]{_shown(short)}[/dim]" if short and words else _shown(text)
