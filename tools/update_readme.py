"""Write the table of settings into the README, between its markers. `make docs` runs it."""

from __future__ import annotations

from pathlib import Path

from sidecar.settings_table import markdown_table

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->\n"


def with_table(text: str) -> str:
    """Return the README's text with the table as the settings say it now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown_table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
