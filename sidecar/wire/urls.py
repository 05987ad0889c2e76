"""URLs in requests that are stored, answered again and logged: they hold no secret."""

from __future__ import annotations

from sidecar.masking import secret_in


def check_no_secret(url: str, *, place: str) -> str:
    """Return the URL. Raises ValueError if it holds a secret, which belongs into `place`."""
    found = secret_in(url)
    if found is not None:
        raise ValueError(f"must not hold {found}: URLs are stored and shown; {place}")
    return url
