"""What a model may be like: the bounds within which it is read from a gateway and written for opencode.

One set for both sides, so that nothing is read that could not be written. opencode 1.18.33 itself takes
longer ids and names and any finite number (test_odd_models); these bounds are what models have, with room.
"""

from __future__ import annotations

import unicodedata

MAX_ID_CHARS = 1024
"""Far above any real id; it is in every request, log line and database row of the model."""
MAX_TYPED_NAME_CHARS = MAX_ID_CHARS + 64
"""Of a name that a client sends: an id, perhaps with a provider before it."""
MAX_NAME_CHARS = 1024
MAX_TOKENS = 2**53 - 1
"""Of a limit. The largest integer that JavaScript, which reads it, counts exactly."""
MAX_USD_PER_MILLION = 1e12
"""Of a price. Makes every product with a count of tokens a finite number."""
MAX_USD_PER_TOKEN = MAX_USD_PER_MILLION / 1_000_000


def why_unusable(model_id: str) -> str | None:
    """Return why no request can name the model, None when one can."""
    if not model_id:
        return "its id is empty"
    if len(model_id) > MAX_ID_CHARS:
        return f"its id is longer than {MAX_ID_CHARS} characters"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in model_id):
        # Gateways send the id back in headers, where a line break would begin another header.
        return "its id holds a control character"
    if "\ufffd" in model_id:  # put there when it was read, so it is no longer the gateway's id
        return "its id is not Unicode text"
    return None
