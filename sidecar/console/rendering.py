"""Fills the templates. Everything that a template is given is escaped, without exception, and what could not
be seen in it, or would turn its order, is named: `<U+202E>`.

Jinja is the template engine that aiohttp's and most of Python's own tools use; it costs about 4 MB, and
nothing before the first page.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sidecar import __version__
from sidecar.console.guard import ROOT

_HERE = Path(__file__).parent
_STATIC_TYPES = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_A_YEAR = 365 * 24 * 3600
UNKNOWN = "\N{EN DASH}"
"""Stands for what no source says."""


class Renderer:
    """The templates and the static files, read once."""

    def __init__(self) -> None:
        """Blocks: reads and compiles all templates."""
        self._static = {name: (_HERE / "static" / name).read_bytes() for name in _STATIC_TYPES}
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=visible,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(_FILTERS)
        self._environment.globals.update(
            root=ROOT,
            version=__version__,
            static={
                name: f"{ROOT}/static/{name}?v={_digest(data)}"
                for name, data in self._static.items()
            },
        )
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    def page(self, template: str, values: Mapping[str, Any], *, status: int = 200) -> web.Response:
        """Return a page."""
        text = self._environment.get_template(template).render(values)
        return web.Response(text=text, status=status, content_type="text/html")

    def static(self, name: str) -> web.Response | None:
        """Return a static file, None when there is none of that name. Its address has its digest."""
        if name not in _STATIC_TYPES:
            return None
        headers = {"cache-control": f"public, max-age={_A_YEAR}, immutable"}
        content_type = _STATIC_TYPES[name]
        return web.Response(body=self._static[name], content_type=content_type, headers=headers)


_UNSEEN = re.compile(
    r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
"""Control characters, what overrides the direction of text, and letters without a width."""


def visible(value: Any) -> Any:
    """Return a text with what cannot be seen named, as console.js does; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNSEEN.sub(
        lambda found: (
            f"\N{MATHEMATICAL LEFT ANGLE BRACKET}U+{ord(found[0]):04X}"
            "\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
        ),
        value,
    )


def as_typed(text: str) -> Markup:
    """Return the text, escaped and otherwise unchanged: a form sends it again."""
    return escape(text)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def number(value: float | None) -> str:
    """Return a whole number with separators, a dash when it is not known."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Return a duration as people say it: 0.24 s, 12 s, 3 min, 2.5 h, 4 d."""
    if value is None:
        return UNKNOWN
    if value < 10:
        return f"{value:.2f} s"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit:
            shown = value / divisor
            return (
                f"{shown:.1f} {unit}" if divisor == 3600 and shown < 10 else f"{shown:.0f} {unit}"
            )
    return f"{value / 86_400:.0f} d"


def size(value: float | None) -> str:
    """Return bytes as people say them."""
    if value is None:
        return UNKNOWN
    shown = float(value)
    for unit in ("B", "KB", "MB"):
        if shown < 1000:
            return f"{shown:.0f} {unit}"
        shown /= 1000
    return f"{shown:.1f} GB"


def money(value: float | None) -> str:
    """Return US dollars; amounts below a cent keep two digits that say something."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 0.1 else f"${value:.2g}" if value >= 0.0001 else "< $0.0001"


def moment(at: float) -> str:
    """Return seconds since the epoch as RFC 3339, in whole seconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(at: str) -> str:
    """Return date and time of an RFC 3339 moment, for people; the script makes it local."""
    return f"{at[:10]} {at[11:19]} UTC"


_FILTERS: dict[str, Callable[..., str]] = {
    "number": number,
    "seconds": seconds,
    "size": size,
    "money": money,
    "moment": moment,
    "clock": clock,
    "as_typed": as_typed,
}
