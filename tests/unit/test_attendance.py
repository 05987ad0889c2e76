"""Which past events a new stream is given."""

import pytest

from sidecar.managed.events.replay_policy import Attendance

GRACE = 15.0


def joins(
    attendance: Attendance, last_seq: int, *, is_sdk: bool = False, is_paused: bool = False
) -> int:
    return attendance.join(
        last_seq=last_seq,
        is_paused=is_paused,
        grace_seconds=GRACE,
        replay_finished=not is_sdk,
    )


@pytest.fixture
def attendance() -> Attendance:
    return Attendance()


def test_before_the_first_turn_a_stream_is_live(attendance: Attendance) -> None:
    """Nothing to replay yet."""
    assert joins(attendance, 3) == 3


def test_an_open_turn_is_replayed_to_everybody(attendance: Attendance) -> None:
    """From its first event, however many streams are there, official SDKs included."""
    attendance.turn_began(5)
    assert [joins(attendance, 8) for _ in range(3)] == [4, 4, 4]
    assert joins(attendance, 8, is_sdk=True) == 4


def test_a_finished_turn_nobody_saw_is_replayed_once(attendance: Attendance) -> None:
    """The drain that comes late gets it; the next but one does not."""
    attendance.turn_began(5)
    attendance.turn_finished()
    assert joins(attendance, 9) == 4
    attendance.leave()
    assert joins(attendance, 9) == 4, "one late reader more"
    attendance.leave()
    assert joins(attendance, 9) == 9


def test_a_finished_turn_that_one_stream_still_reads_is_not_replayed(
    attendance: Attendance,
) -> None:
    """The late reader comes after the first has left, not beside it."""
    attendance.turn_began(5)
    assert joins(attendance, 6) == 4
    attendance.turn_finished()
    assert joins(attendance, 9) == 9


def test_a_channel_that_was_open_at_the_start_prevents_replays(attendance: Attendance) -> None:
    """Readers that open before the prompt must not get an older turn at the next prompt."""
    assert joins(attendance, 0) == 0
    attendance.turn_began(1)
    assert joins(attendance, 4) == 0
    attendance.leave()
    attendance.turn_finished()
    attendance.leave()
    assert joins(attendance, 9) == 9


def test_replays_end_with_the_grace(attendance: Attendance) -> None:
    """Long after the end, or after the last reader left, a stream is live only."""
    attendance.turn_began(5)
    attendance.turn_finished()
    assert attendance.turn_ended is not None
    attendance.turn_ended -= GRACE + 1
    assert joins(attendance, 9) == 9

    attendance.turn_began(10)
    joins(attendance, 10)
    attendance.turn_finished()
    attendance.leave()
    attendance.last_left -= GRACE + 1
    assert joins(attendance, 14) == 14


def test_official_sdks_never_get_a_finished_turn(attendance: Attendance) -> None:
    """Their loops stop at an idle event, which an old turn would bring."""
    attendance.turn_began(5)
    attendance.turn_finished()
    assert joins(attendance, 9, is_sdk=True) == 9


def test_a_turn_that_waits_for_the_client_has_shown_an_idle(attendance: Attendance) -> None:
    """For SDKs it is live only, for the others it is still the open turn."""
    attendance.turn_began(5)
    assert joins(attendance, 9, is_sdk=True, is_paused=True) == 9
    assert joins(attendance, 9, is_paused=True) == 4


def test_a_new_turn_starts_the_count_again(attendance: Attendance) -> None:
    """What was seen of the turn before does not matter."""
    attendance.turn_began(1)
    joins(attendance, 1)
    attendance.turn_finished()
    attendance.leave()
    attendance.turn_began(10)
    attendance.turn_finished()
    assert joins(attendance, 15) == 9
