"""The README tells what the code does."""

from __future__ import annotations

from tools.update_readme import README, with_table


def test_the_table_of_settings_is_the_settings_own() -> None:
    """A field that is added or changed shows in the README; `python -m tools.update_readme` writes it."""
    text = README.read_text(encoding="utf-8")

    assert with_table(text) == text


def test_every_file_the_readme_links_to_exists() -> None:
    """No dead links into the repository."""
    text = README.read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    inside = [link for link in links if "://" not in link]

    assert inside
    assert [link for link in inside if not (README.parent / link).exists()] == []
