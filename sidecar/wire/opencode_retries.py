"""How opencode decides to try a model request again: by words and digits, whatever the status of the error.

Source: opencode 1.18.33. `max_tokens: 50000` has such digits. An error that another try does not mend reaches
opencode in a spelling that reads the same, and people in the original one.
"""

from __future__ import annotations

import re

_JOINER = "\u2060"
"""WORD JOINER: not seen, and it does not break a line."""
_WORDS = (
    r"429|50[0234]|524"
    r"|rate increased too quickly|rate[ _-]limit|too[ _]many[ _]requests"
    r"|overloaded|(?:service[ _-])?unavailable|internal[ _]error|server[ _-]error"
    r"|provider[ _-]returned[ _-]error|exhausted|(?:currently|temporarily) at capacity"
    r"|terminated|fetch failed|failed to fetch|network[\s_-]error|upstream connect"
    r"|connection (?:error|refused|lost)|socket connection was closed|socket hang up"
    r"|reset before headers|getaddrinfo|enotfound|eai_again|econnrefused|econnreset|etimedout"
    r"|time[d ]{0,2}out|try your request again|retry your request|try again"
)
_FIRST_LETTER = re.compile(rf"(?=(?:{_WORDS})).", re.IGNORECASE)
"""Of each word, also of one that begins inside another: `50429`."""


def has_retry_words(text: str) -> bool:
    """Whether opencode would try again for this text."""
    return _FIRST_LETTER.search(text) is not None


def without_retry_words(text: str) -> str:
    """Return a text that reads the same and for which opencode does not try again."""
    return _FIRST_LETTER.sub(lambda first: first[0] + _JOINER, text)


def as_it_was(text: str) -> str:
    """Undo `without_retry_words`."""
    return text.replace(_JOINER, "")
