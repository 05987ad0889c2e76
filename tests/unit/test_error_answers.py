"""How errors reach the child: it tries again only where that may help."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.gateway.error_answers import error_answer
from sidecar.gateway.error_status import is_final
from sidecar.wire.opencode_retries import as_it_was, without_retry_words

WORDS = (
    *("429", "500", "502", "503", "504", "524", "max_tokens: 50000 > 150042", "rate limit"),
    *("Rate-Limit", "rate_limit_error", "Too Many Requests", "too_many_requests", "Overloaded"),
    *("service unavailable", "Service_Unavailable", "internal error", "Internal Server Error"),
    *("server_error", "provider returned error", "terminated", "fetch failed", "network error"),
    *("upstream connect", "connection refused", "connection lost", "socket hang up", "ENOTFOUND"),
    *("ECONNRESET", "ETIMEDOUT", "timeout", "request timed out", "read time out", "stream timeout"),
    *("try your request again", "retry your request", "resource exhausted", "RESOURCE_EXHAUSTED"),
    *("try again later", "try again in 3 days", "currently at capacity", "temporarily at capacity"),
)


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=6))
def test_the_words_are_hidden_and_the_text_stays(words: list[str]) -> None:
    """In the text, and in the JSON of it; what is read is the same."""
    text = " ".join(words)
    calm = without_retry_words(text)
    assert as_it_was(calm) == as_it_was(text)
    for each in (calm, json.dumps(calm)):
        assert without_retry_words(each) == each
        assert not any(digits in each for digits in ("429", "500", "502", "503", "504", "524"))


@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_final_error_has_no_word_for_which_it_is_tried_again(path: str, status: int) -> None:
    """In none of its fields."""
    error = {"type": "server_error", "code": "500", "param": "max_tokens", "message": "50000 > 500"}
    body = error_answer(path, status, error["message"], error=error).body
    assert isinstance(body, bytes)
    assert without_retry_words(body.decode()) == body.decode()
    shown = json.loads(body)["error"]
    assert as_it_was(shown["message"]) == "50000 > 500"
    assert shown["param"] == "max_tokens"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_other_errors_are_as_they_came(status: int) -> None:
    """opencode should try them again."""
    error = {"type": "rate_limit_error", "message": "429 rate limit"}
    body = error_answer("messages", status, "429 rate limit", error=error).body
    assert isinstance(body, bytes)
    assert not is_final(status)
    assert json.loads(body)["error"] == error


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded", "message": "x"},
        {"message": "litellm.ContextWindowExceededError: 500 tokens"},
        {"type": "invalid_request_error", "message": "prompt is too long: 250000 tokens"},
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "messages"])
def test_a_prompt_that_is_too_long_has_the_code_of_it(path: str, error: dict[str, Any]) -> None:
    """By which opencode knows that it has to compact."""
    body = error_answer(path, 400, error["message"], error=error).body
    assert isinstance(body, bytes)
    assert json.loads(body)["error"]["code"] == "context_length_exceeded"
    assert json.loads(body)["error"]["message"] == error["message"]
