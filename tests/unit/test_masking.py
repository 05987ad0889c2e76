"""Secrets are found in every shape in which a server may echo them."""

import base64
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.masking import masked

SECRET = "ghp_s3cret/+value?for=tests"


@pytest.mark.parametrize("around", ["", "x-access-token:", "a:", "ab:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_anything_with_the_secret_is_masked(
    around: str, encode: Callable[[bytes], bytes]
) -> None:
    """A Basic header does not give the token away, whatever the user's name is."""
    header = encode(f"{around}{SECRET}".encode()).decode()
    shown = masked(f"Authorization: Basic {header} refused", SECRET)
    assert "***" in shown
    left = shown.split("Basic ")[1].split(" refused")[0].replace("***", "")
    assert len(left) <= len(base64.b64encode(around.encode())) + 4


@given(st.text(min_size=12, max_size=40), st.text(max_size=10), st.text(max_size=10))
def test_plain_and_percent_encoded_are_masked(secret: str, before: str, after: str) -> None:
    """Neither the secret nor its percent-encoded form is left."""
    text = f"{before}|{secret}|{quote(secret, safe='')}|{after}"
    assert secret not in masked(text, secret).replace("***", "")


def test_other_text_stays() -> None:
    """Nothing but the secret is replaced."""
    assert masked("fatal: repository 'https://h/x' not found", SECRET) == (
        "fatal: repository 'https://h/x' not found"
    )
