"""What speaks against a child that does not answer, and what does not."""

from collections.abc import Callable

from sidecar.opencode.pulse import OVERWORKED, SILENT, Pulse, Work


class Child:
    """A process as the pulse sees it."""

    def __init__(self) -> None:
        self.work = Work()
        self.signs = 0

    def pulse(self, *, silence: float = 20.0, limit: float = 600.0) -> Pulse:
        """Return the pulse of this child."""
        return Pulse(
            pid=lambda: 1,
            signs=lambda: self.signs,
            silence_seconds=silence,
            limit_seconds=limit,
            read_work=lambda _pid: self.work,
        )


async def _miss(
    pulse: Pulse, seconds: int, meanwhile: Callable[[], None] = lambda: None, *, late: float = 0.0
) -> tuple[int, str | None]:
    """Miss a check each second until the child is given up; return after how many, and why."""
    await pulse.begin()
    for second in range(1, seconds + 1):
        meanwhile()
        if (reason := await pulse.missed(planned_seconds=1.0, took_seconds=1.0 + late)) is not None:
            return second, reason
    return seconds, None


async def test_silence_without_work_ends_at_its_bound() -> None:
    """A child that stops, as with SIGSTOP, is given up after the time-out."""
    assert await _miss(Child().pulse(), 100) == (20, SILENT)


async def test_a_child_that_works_is_alive_up_to_the_limit() -> None:
    """Processor time keeps it, even a little on a crowded machine; beyond the limit it does not."""
    child = Child()

    def work() -> None:
        child.work = Work(child.work.used + 0.03)

    assert await _miss(child.pulse(limit=300), 1000, work) == (300, OVERWORKED)


async def test_whatever_arrives_from_it_shows_that_it_lives() -> None:
    """Events and model requests do, where its process is not known."""
    child = Child()

    def send() -> None:
        child.signs += 1

    assert await _miss(child.pulse(), 100, send) == (100, None)


async def test_a_few_timers_are_no_work() -> None:
    """A process that hangs still wakes up now and then."""
    child = Child()

    def wake() -> None:
        child.work = Work(child.work.used + 0.01)

    assert await _miss(child.pulse(), 100, wake) == (20, SILENT)


async def test_waiting_for_a_processor_is_no_silence() -> None:
    """An idle child on a crowded machine has twice the time when it waits for half of it."""
    child = Child()

    def wait() -> None:
        child.work = Work(0.0, child.work.waited + 0.5)

    seconds, reason = await _miss(child.pulse(), 100, wait)
    assert reason == SILENT
    assert 38 <= seconds <= 42


async def test_our_own_lateness_is_no_silence() -> None:
    """A check that ends late because our loop was late counts as long as it was to take."""
    assert await _miss(Child().pulse(), 100, late=30.0) == (20, SILENT)


async def test_an_answer_forgives_everything() -> None:
    """The next silence begins at zero."""
    child = Child()
    pulse = child.pulse()
    assert await _miss(pulse, 19) == (19, None)
    pulse.answered()
    assert await _miss(pulse, 100) == (20, SILENT)
