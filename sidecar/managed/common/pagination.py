"""Cursor pages over (created_at, id): opaque cursors, bound to their order."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sidecar.errors import InvalidRequestError
from sidecar.store.interface import Connection, Row
from sidecar.wire.json_text import read_strictly

Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins: after (or, backward, before) the row with these keys."""

    order: Order
    created_at: str
    id: str
    backward: bool = False

    def encode(self) -> str:
        """Return the opaque text."""
        raw = json.dumps([self.order, self.created_at, self.id, int(self.backward)])
        return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, order: Order) -> Cursor:
        """Read what `encode` wrote. Raises InvalidRequestError; also when the order differs."""
        try:
            padded = text + "=" * (-len(text) % 4)
            decoded = read_strictly(base64.urlsafe_b64decode(padded))
            made_for, created_at, id_, backward = decoded
            cursor = cls(made_for, str(created_at), str(id_), bool(backward))
        except (ValueError, TypeError, binascii.Error) as error:
            raise InvalidRequestError(
                "page: not a cursor of this list; use next_page of an earlier answer", field="page"
            ) from error
        if cursor.order != order:
            raise InvalidRequestError(
                f"page: the cursor was made with order={cursor.order}; keep the order", field="page"
            )
        return cursor


@dataclass(slots=True)
class Query:
    """A filtered list over one table with `created_at` and `id` columns."""

    select: str
    limit: int
    order: Order = "desc"
    page: str | None = None
    conditions: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)

    def where(self, condition: str, *parameters: Any) -> None:
        """Add a condition with its parameters."""
        self.conditions.append(condition)
        self.parameters.extend(parameters)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page and the cursors beside it (None at the ends)."""

    rows: Sequence[Row]
    next_page: str | None
    prev_page: str | None

    def envelope(self, convert: Callable[[Row], dict[str, Any]]) -> dict[str, Any]:
        """Return `{"data": [...], "next_page": ...}`."""
        return {"data": [convert(row) for row in self.rows], "next_page": self.next_page}


def fetch_page(connection: Connection, query: Query) -> Page:
    """Run the query. One row more than the limit is read, so that no cursor leads to an empty page."""
    cursor = Cursor.decode(query.page, query.order) if query.page else None
    backward = cursor is not None and cursor.backward
    descending = (query.order == "desc") != backward
    conditions, parameters = list(query.conditions), list(query.parameters)
    if cursor is not None:
        conditions.append(f"(created_at, id) {'<' if descending else '>'} (?, ?)")
        parameters += [cursor.created_at, cursor.id]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    direction = "DESC" if descending else "ASC"
    rows = connection.execute(
        f"{query.select}{where} ORDER BY created_at {direction}, id {direction} LIMIT ?",
        [*parameters, query.limit + 1],
    ).fetchall()
    more = len(rows) > query.limit
    rows = rows[: query.limit]
    if backward:
        rows.reverse()
    has_next = more if not backward else True
    has_previous = more if backward else cursor is not None
    return Page(
        rows,
        next_page=_cursor_at(rows[-1], query.order) if rows and has_next else None,
        prev_page=_cursor_at(rows[0], query.order, backward=True)
        if rows and has_previous
        else None,
    )


def _cursor_at(row: Row, order: Order, *, backward: bool = False) -> str:
    return Cursor(order, row["created_at"], row["id"], backward).encode()
