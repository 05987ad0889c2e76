"""What the relay reads of a request's body."""

import pytest

from sidecar.gateway.call import Call


@pytest.mark.parametrize(
    ("body", "model", "wants_stream"),
    [
        (b'{"model":"vendor/m:1","stream":true}', "vendor/m:1", True),
        (b'\n{ "model" : "m", "messages": [], "stream": false}', "m", False),
        (b'{"stream":true,"model":"m"}', "m", True),
        (b'{"model":"\\u006d"}', "m", False),
        (b'{"messages":[{"model":"other"}],"model":"m"}', "m", False),
        (b'{"model":null}', "", False),
        (b'{"model":"m","tools":[{"stream":true}]}', "m", False),
        (b"[1]", "", False),
        (b"{nope", "", False),
        (b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", False),
        (b"", "", False),
    ],
)
def test_model_and_stream(body: bytes, model: str, wants_stream: bool) -> None:
    """Wherever they stand; a body that is no object names nothing."""
    call = Call("chat/completions", body)
    assert (call.model, call.wants_stream) == (model, wants_stream)


def test_a_long_prompt_is_not_parsed_for_its_model() -> None:
    """The model in front is found although what follows is no JSON."""
    assert Call("messages", b'{"model":"m","messages":[' + b"x" * 1000).model == "m"
