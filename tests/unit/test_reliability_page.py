"""docs/reliability.md: each promise names tests, and they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()


def rows() -> list[list[str]]:
    """Return the cells of the rows of all tables of promises, without their heads."""
    tables = re.findall(r"^\| Promise .*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    lines = [line for table in tables for line in table.splitlines()]
    # A table that is cut in two by an empty line is no table any more.
    assert len(lines) == len(re.findall(r"^\|.*`tests/.*\|$", PAGE, re.MULTILINE))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_promise_names_its_tests() -> None:
    """Three cells, a sentence that stands there once, and files that exist."""
    found = rows()
    assert len(found) > 20
    assert len({row[0] for row in found}) == len(found)
    for row in found:
        promise, _, tests = row
        paths = re.findall(r"`(tests/[^`]+)`", tests)
        assert paths, promise
        assert [path for path in paths if not (ROOT / path).exists()] == [], promise
        assert any(Path(path).name.startswith("test_") or path.endswith("/") for path in paths), row
