"""Turns one HTML page on stdin into Markdown or text on stdout: `python page_text.py FORMAT URL CHARSET`.

Run as a program, not imported. A page is written by strangers: parsing one may take minutes, or all memory,
and would hold up everything else in the sidecar's process. Here the kernel ends it.
"""

import contextlib
import re
import sys
from typing import Any
from urllib.parse import urljoin

_CPU_SECONDS = 10
_MEMORY_BYTES = 1 << 30
_INVISIBLE = [
    *("script", "style", "noscript", "template", "iframe", "object", "embed", "svg", "canvas"),
    *("link", "meta", "head"),
]


def main(arguments: list[str]) -> None:
    """Convert, within bounds."""
    kind, url, charset = arguments
    _limit()
    from bs4 import BeautifulSoup  # noqa: PLC0415  # within the bounds

    soup = BeautifulSoup(sys.stdin.buffer.read(), "html.parser", from_encoding=charset or None)
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for element in soup(_INVISIBLE):
        element.decompose()
    try:
        text = _markdown(soup, url) if kind == "markdown" else soup.get_text("\n", strip=True)
    except RecursionError:  # elements inside each other, more than Python's stack has room for
        text = "\n".join(soup.stripped_strings)
    heading = f"# {title}\n\n" if title and kind == "markdown" and not text.startswith("# ") else ""
    text = re.sub(r"\n[ \t]*\n\s*\n", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()
    sys.stdout.buffer.write(f"{heading}{text}\n".encode("utf-8", "replace"))


def _limit() -> None:
    import resource  # noqa: PLC0415  # not on every system

    for kind, most in (
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
            resource.setrlimit(kind, (most, most))


def _markdown(soup: Any, url: str) -> str:
    from markdownify import ATX, MarkdownConverter  # noqa: PLC0415

    base = soup.find("base", href=True)
    root = urljoin(url, base["href"]) if base else url
    for link in soup.find_all("a", href=True):
        link["href"] = _absolute(root, link["href"])
    for image in soup.find_all("img"):
        source = str(image.get("src") or "")
        if source.startswith("data:"):
            image.decompose()
        elif source:
            image["src"] = _absolute(root, source)
    converter = MarkdownConverter(
        heading_style=ATX, bullets="-", escape_asterisks=False, escape_underscores=False
    )
    return str(converter.convert_soup(soup))


def _absolute(root: str, target: str) -> str:
    with contextlib.suppress(ValueError):
        return urljoin(root, target)
    return target


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        main(sys.argv[1:])
        sys.exit(0)
    sys.exit("the page cannot be converted here: markdownify is not installed")
