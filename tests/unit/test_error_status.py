"""The status of errors that came without one."""

from typing import Any

import pytest

from sidecar.gateway.error_status import pause_of, status_of

LITELLM = "litellm.RateLimitError: RateLimitError: OpenAIException - too fast"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        # Anthropic
        ({"type": "invalid_request_error", "message": "max_tokens: 50000 > 32000"}, 400),
        ({"type": "authentication_error", "message": "x"}, 401),
        ({"type": "billing_error", "message": "x"}, 402),
        ({"type": "permission_error", "message": "x"}, 403),
        ({"type": "not_found_error", "message": "x"}, 404),
        ({"type": "request_too_large", "message": "x"}, 413),
        ({"type": "rate_limit_error", "message": "x"}, 429),
        ({"type": "api_error", "message": "Internal server error"}, 502),
        ({"type": "timeout_error", "message": "x"}, 504),
        ({"type": "overloaded_error", "message": "Overloaded"}, 529),
        # OpenAI
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, 400),
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, 401),
        ({"type": "invalid_request_error", "code": "model_not_found"}, 404),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, 402),
        (
            {"type": "insufficient_quota", "code": 429, "message": "exceeded your current quota"},
            402,
        ),
        ({"type": "requests", "code": "rate_limit_exceeded"}, 429),
        ({"type": "server_error", "code": None, "message": "sorry"}, 502),
        ({"code": "server_is_overloaded", "message": "x"}, 502),
        # LiteLLM, vLLM
        ({"message": LITELLM, "type": None, "code": None}, 429),
        ({"message": LITELLM, "type": "throttling_error", "param": None, "code": "429"}, 429),
        ({"message": "litellm.ContextWindowExceededError: x", "code": "500"}, 400),
        ({"message": "litellm.exceptions.BadRequestError: x"}, 400),
        ({"message": "litellm.APIConnectionError: x", "code": "500"}, 502),
        ({"message": "Budget has been exceeded! Current cost: 5", "code": "429"}, 402),
        ({"object": "error", "type": "BadRequestError", "code": 400, "message": "x"}, 400),
        ({"message": "This model's maximum context length is 4096 tokens"}, 400),
        ({"message": "prompt is too long: 250000 tokens > 200000 maximum"}, 400),
        # Google, AWS
        ({"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}, 429),
        ({"status": "PERMISSION_DENIED", "message": "x"}, 403),
        ({"code": 503, "status": "UNAVAILABLE", "message": "x"}, 529),
        ({"type": "ThrottlingException", "message": "x"}, 429),
        ({"type": "ValidationException", "message": "x"}, 400),
        ({"type": "ServiceUnavailableException", "message": "x"}, 529),
        # numbers in any form, and none
        ({"code": "403", "message": "x"}, 403),
        ({"status": 422.0, "message": "x"}, 422),
        ({"status_code": "418", "message": "x"}, 418),
        ({"code": 200, "message": "x"}, 502),
        ({"code": True, "type": ["x"], "status": {}, "message": 5}, 502),
        ({"message": "boom 429 500"}, 502),
        ({}, 502),
    ],
)
def test_status(error: dict[str, Any], status: int) -> None:
    """What the error is called, and its numbers, say it; its text only where both are silent."""
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"retry_after": 7}, 7),
        ({"retry_after": "7.2"}, 8),
        ({"retry_after_ms": 1500}, 2),
        ({"details": [{"@type": "x"}, {"retryDelay": "34.07s"}]}, 35),
        ({"message": "Rate limit reached. Please try again in 20s."}, 20),
        ({"message": "Please try again in 350ms"}, 1),
        ({"message": "Please retry after 2 minutes"}, 120),
        ({"message": "retry after 10 seconds"}, 10),
        ({"message": "slow down"}, None),
        ({"retry_after": -1}, None),
        ({"retry_after": "soon", "details": "x"}, None),
        ({}, None),
    ],
)
def test_pause(error: dict[str, Any], seconds: int | None) -> None:
    """From fields, from Google's details, from the text."""
    assert pause_of(error) == seconds
