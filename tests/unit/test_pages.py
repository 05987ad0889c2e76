"""Cursor pages: complete, in order, opaque, and never an empty page behind a cursor."""

import sqlite3
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import InvalidRequestError
from sidecar.managed.common.pagination import Cursor, Order, Page, Query, fetch_page


def table(stamps: list[int]) -> sqlite3.Connection:
    """Return a table with one row per stamp; ids grow with the position."""
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.execute("CREATE TABLE things (id TEXT, created_at TEXT, body TEXT)")
    rows = [(f"id{number:03}", f"2026-01-{stamp:02}") for number, stamp in enumerate(stamps)]
    connection.executemany("INSERT INTO things VALUES (?, ?, '{}')", rows)
    return connection


def page(
    connection: sqlite3.Connection,
    limit: int,
    order: Order = "desc",
    cursor: str | None = None,
    max_chars: int = 1000,
) -> Page:
    return fetch_page(connection, Query("SELECT * FROM things", limit, max_chars, order, cursor))


def ids(found: Page) -> list[str]:
    return [row["id"] for row in found.rows]


@given(
    st.lists(st.integers(1, 4), max_size=12),
    st.integers(1, 5),
    st.sampled_from(["asc", "desc"]),
)
def test_pages_together_are_the_whole_list(stamps: list[int], limit: int, order: Order) -> None:
    """Every row once, in order, also with equal times; only the last page has no next, none is empty."""
    connection = table(stamps)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        found = page(connection, limit, order, cursor)
        assert found.rows or not stamps
        seen += ids(found)
        cursor = found.next_page
        if cursor is None:
            break
    keys = sorted((stamp, f"id{number:03}") for number, stamp in enumerate(stamps))
    wanted = [id_ for _, id_ in keys]
    assert seen == (wanted if order == "asc" else wanted[::-1])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 5))
def test_the_way_back_shows_the_same_pages(stamps: list[int], limit: int) -> None:
    """Following prev_page from the last page gives the pages seen before, down to the first."""
    connection = table(stamps)
    forward = [page(connection, limit)]
    while forward[-1].next_page:
        forward.append(page(connection, limit, cursor=forward[-1].next_page))
    backward = [forward[-1]]
    while backward[-1].prev_page:
        backward.append(page(connection, limit, cursor=backward[-1].prev_page))
    assert [ids(found) for found in backward] == [ids(found) for found in reversed(forward)]


def test_rows_that_come_meanwhile_do_not_shift_a_page() -> None:
    """A new row at the front neither repeats nor hides one of the following page."""
    connection = table([1, 2, 3, 4])
    first = page(connection, 2)
    connection.execute("INSERT INTO things VALUES ('new', '2026-02-01', '{}')")
    assert ids(page(connection, 2, cursor=first.next_page)) == ["id001", "id000"]


def test_conditions_hold_on_every_page() -> None:
    """Filters and cursor work together."""
    connection = table([1, 2, 3, 4, 5])
    query = Query("SELECT * FROM things", 2, 1000)
    query.where("created_at <= ?", "2026-01-04")
    first = fetch_page(connection, query)
    assert ids(first) == ["id003", "id002"]
    query.page = first.next_page
    assert ids(fetch_page(connection, query)) == ["id001", "id000"]


def test_a_cursor_belongs_to_its_order() -> None:
    """Used with the other order it is refused, with a message that says so."""
    text = Cursor("desc", "2026-01-01", "id1").encode()
    assert Cursor.decode(text, "desc") == Cursor("desc", "2026-01-01", "id1")
    with pytest.raises(InvalidRequestError, match="order=desc"):
        Cursor.decode(text, "asc")


@pytest.mark.parametrize("text", ["", "x", "%%", "bnVsbA", "e30", "WzFd", "é", "A" * 5000])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """Any other text is an InvalidRequestError, never a crash."""
    with pytest.raises(InvalidRequestError, match="next_page"):
        Cursor.decode(text, "desc")


@given(st.text(max_size=80))
def test_no_text_crashes_the_decoder(text: str) -> None:
    """Whatever a client sends as cursor, decoding ends in a cursor or in InvalidRequestError."""
    with suppress(InvalidRequestError):
        assert Cursor.decode(text, "desc").order == "desc"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 8))
def test_a_page_ends_at_its_size(stamps: list[int], max_chars: int) -> None:
    """A page has at most one row more than its size, at least one row, and leads to the rest."""
    connection = table(stamps)
    seen, cursor, size = [], None, len("{}")
    while True:
        found = page(connection, 100, cursor=cursor, max_chars=max_chars)
        assert 1 <= len(found.rows) <= -(-max_chars // size)
        assert found.size == size * len(found.rows)
        seen += ids(found)
        cursor = found.next_page
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == len(stamps)


def test_more_rows_than_one_read_fetches() -> None:
    """A long page is read in several steps, in order and without a gap."""
    connection = table([1 + number // 40 for number in range(130)])
    first = page(connection, 120, "asc")
    rest = page(connection, 120, "asc", first.next_page)
    assert (len(first.rows), len(rest.rows)) == (120, 10)
    assert ids(first) + ids(rest) == [f"id{number:03}" for number in range(130)]
    assert rest.next_page is None
