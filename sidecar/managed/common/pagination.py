"""Cursor pages over (created_at, id): opaque cursors, bound to their order."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
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


MAX_PAGE_CHARS = 32 * 1024 * 1024
_READ_ROWS = 50
"""A resource has at most some MB, so that one read has at most so many times that."""


@dataclass(slots=True)
class Query:
    """A filtered list over one table with `created_at`, `id` and `body` columns.

    A page ends at `limit` rows, or when their bodies have `max_chars` characters together.
    """

    select: str
    limit: int
    max_chars: int = MAX_PAGE_CHARS
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
    size: int
    """Of the rows' bodies, characters."""

    def envelope(self, convert: Callable[[Row], dict[str, Any]]) -> Envelope:
        """Return `{"data": [...], "next_page": ...}`. Call it in the job that reads: it may be large."""
        data = [convert(row) for row in self.rows]
        return Envelope(self.size, data=data, next_page=self.next_page)


class Envelope(dict[str, Any]):
    """A page as it is answered, and about how many characters its JSON has."""

    def __init__(self, size: int, **fields: Any) -> None:
        super().__init__(fields)
        self.size = size


def fetch_page(connection: Connection, query: Query) -> Page:
    """Run the query. One row more than the page has is read, so that no cursor leads to an empty page."""
    cursor = Cursor.decode(query.page, query.order) if query.page else None
    backward = cursor is not None and cursor.backward
    descending = (query.order == "desc") != backward
    rows: list[Row] = []
    size, more = 0, False
    for row in _rows(connection, query, cursor, is_descending=descending):
        if rows and (len(rows) == query.limit or size >= query.max_chars):
            more = True
            break
        rows.append(row)
        size += len(row["body"])
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
        size=size,
    )


def _rows(
    connection: Connection, query: Query, cursor: Cursor | None, *, is_descending: bool
) -> Iterator[Row]:
    """Yield what follows the cursor, read as it is needed."""
    direction, comparison = ("DESC", "<") if is_descending else ("ASC", ">")
    count = min(_READ_ROWS, query.limit + 1)
    after = (cursor.created_at, cursor.id) if cursor is not None else None
    is_last = False
    while not is_last:
        conditions, parameters = list(query.conditions), list(query.parameters)
        if after is not None:
            conditions.append(f"(created_at, id) {comparison} (?, ?)")
            parameters += after
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = connection.execute(
            f"{query.select}{where} ORDER BY created_at {direction}, id {direction} LIMIT ?",
            [*parameters, count],
        ).fetchall()
        yield from rows
        is_last = len(rows) < count
        if rows:
            after = rows[-1]["created_at"], rows[-1]["id"]


def _cursor_at(row: Row, order: Order, *, backward: bool = False) -> str:
    return Cursor(order, row["created_at"], row["id"], backward).encode()
