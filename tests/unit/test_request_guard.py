"""The bound on model requests of one turn."""

from sidecar.gateway.request_guard import RequestGuard


def test_requests_in_vain_are_refused_until_the_session_is_idle() -> None:
    """The row is broken by progress; other sessions are not affected."""
    guard = RequestGuard(max_without_progress=2)
    for is_progress in (False, True, False, False):
        assert guard.begin("a") is None
        guard.end("a", is_progress=is_progress)
    refused = guard.begin("a")
    assert refused is not None
    assert refused.kind == "limit"
    assert guard.begin("a") is not None
    assert guard.begin("b") is None
    guard.forget("a")
    assert guard.begin("a") is None
    assert guard.refusals == {"no_progress": 2, "turn_limit": 0}


def test_requests_of_sub_agents_belong_to_the_turn_of_their_root() -> None:
    """A sub-agent that is idle gives nothing back; the root's idle does."""
    guard = RequestGuard(max_per_turn=3)
    assert guard.begin("root") is None
    assert guard.begin("sub", "root") is None
    guard.forget("sub")
    assert guard.begin("deep", "root") is None
    assert guard.largest_turn == 3
    assert guard.begin("deep", "root") is not None
    guard.forget("root")
    assert guard.begin("deep", "root") is None


def test_requests_without_a_session_are_not_counted() -> None:
    """They belong to no turn."""
    guard = RequestGuard(max_per_turn=1)
    assert [guard.begin("") for _ in range(3)] == [None] * 3


def test_sessions_that_name_each_other_as_parent_do_not_hang() -> None:
    """The ids come from headers."""
    guard = RequestGuard()
    assert guard.begin("a", "b") is None
    assert guard.begin("b", "a") is None
    guard.forget("a")
