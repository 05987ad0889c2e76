"""Which headers of the gateway's answer reach the child."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from sidecar.gateway.headers import for_child


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Retry-After", "5", "5"),
        ("retry-after", "60", "60"),
        ("retry-after", "3600", "60"),
        ("retry-after", "1e400", "60"),
        ("retry-after", "nan", "60"),
        ("retry-after", "Thu, 31 Dec 2099 23:59:59 GMT", "60"),
        ("retry-after", "soon", "soon"),
        ("retry-after-ms", "800", "800"),
        ("retry-after-ms", "9999999", "60000"),
    ],
)
def test_no_gateway_makes_a_turn_wait_without_bound(name: str, value: str, expected: str) -> None:
    """opencode obeys these headers; a past date or what is no pause passes, opencode ignores it."""
    headers = CIMultiDictProxy(CIMultiDict({name: value, "location": "http://elsewhere"}))
    assert dict(for_child(headers, max_retry_after_seconds=60).items()) == {name: expected}
