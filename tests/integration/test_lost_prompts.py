"""Prompts that opencode or the sidecar loses, through the store. What is decided is in tests/unit/turns."""

from __future__ import annotations

import json
from typing import Any

from sidecar.managed.sessions.engine import SessionEngine
from sidecar.model_requests import ModelRequestStarted
from sidecar.store.interface import Connection, Store
from tests.fakes.scripted_child import ScriptedChild, history, make_engine, new_session, send
from tests.harness import text_of, types_of, user_message
from tests.waiting import until


async def run_turn(database: Store, child: ScriptedChild) -> list[dict[str, Any]]:
    """Send one message and return the turn's events."""
    session_id = await new_session(database)
    engine = make_engine(database, child)
    await send(engine, session_id, user_message("go"))
    turn = (await engine.live.actor(session_id)).turn
    assert turn is not None
    await turn.done.wait()
    await engine.drain(0.1)
    return await history(database, session_id)


async def test_a_prompt_that_came_to_nothing_is_sent_again(database: Store) -> None:
    """Same message id, in a directory that was loaded anew; the client sees one clean turn."""
    child = ScriptedChild("dies", "answers")
    events = await run_turn(database, child)
    assert text_of(events) == "here"
    assert "session.error" not in types_of(events)
    assert types_of(events).count("session.status_idle") == 1
    assert len(child.prompts) == 2
    assert len(set(child.prompts)) == 1
    assert child.reloads == [False, True]


async def lose_one(database: Store, child: ScriptedChild) -> tuple[str, SessionEngine]:
    """Start a turn whose prompt is lost, and that waits for the next boot of the child."""
    child.is_back.clear()
    session_id, engine = await new_session(database), make_engine(database, child)
    await send(engine, session_id, user_message("go"))
    await until(lambda: len(child.reloads) >= 2)
    return session_id, engine


async def _shown(database: Store, session_id: str, type_: str) -> None:
    """Wait until the log has an event of that type."""

    async def is_there() -> bool:
        return type_ in types_of(await history(database, session_id))

    await until(is_there)


async def start_again(
    database: Store, session_id: str, child: ScriptedChild
) -> list[dict[str, Any]]:
    """Recover as the next process does; return the session's events when its turn is over."""
    engine = make_engine(database, child)
    await engine.recover()
    await _shown(database, session_id, "session.status_idle")
    await engine.drain(0.1)
    return await history(database, session_id)


async def test_a_lost_prompt_is_sent_by_the_next_start(database: Store) -> None:
    """With the same id, in a directory loaded anew, once the child says that it has not taken it."""
    child = ScriptedChild("unreachable")
    session_id, engine = await lose_one(database, child)
    await engine.drain(0.1)
    assert child.aborts == 1

    again = ScriptedChild("answers")
    events = await start_again(database, session_id, again)
    assert (again.prompts, again.reloads) == (child.prompts, [True])
    assert text_of(events) == "here"
    assert "session.error" not in types_of(events)


async def killed_after_the_prompt(database: Store, child: ScriptedChild) -> str:
    """Begin a turn and lose the sidecar as SIGKILL would, once the child has the prompt."""
    session_id, engine = await new_session(database), make_engine(database, child)
    await send(engine, session_id, user_message("go"))
    await until(lambda: child.prompts)
    await engine._tasks.close()
    return session_id


async def test_a_prompt_that_was_taken_before_a_kill_is_not_sent_again(
    database: Store,
) -> None:
    """Its tools may have run, whatever the log shows: the turn is cut, and the error says why."""
    session_id = await killed_after_the_prompt(database, ScriptedChild("works on"))
    again = ScriptedChild(has_taken=True)
    events = await start_again(database, session_id, again)
    assert (again.prompts, again.aborts) == ([], 1)
    (error,) = (e["error"] for e in events if e["type"] == "session.error")
    assert "the sidecar was restarted" in error["message"]


async def test_a_prompt_of_which_the_log_shows_work_is_not_sent_again(
    database: Store,
) -> None:
    """The child is not even asked: it may have lost its own history."""
    child = ScriptedChild("works on")
    session_id, engine = await new_session(database), make_engine(database, child)
    await send(engine, session_id, user_message("go"))
    await until(lambda: child.prompts)
    child.tell(ModelRequestStarted("req_1"))
    await _shown(database, session_id, "span.model_request_start")
    await engine._tasks.close()
    again = ScriptedChild("answers")
    events = await start_again(database, session_id, again)
    assert again.reloads == []
    assert types_of(events)[-4:].count("session.error") == 1


async def test_a_prompt_that_an_earlier_version_noted_as_sent_is_not_sent_again(
    database: Store,
) -> None:
    """Its rows say `is_prompted`, and it never sent twice."""
    session_id = await killed_after_the_prompt(database, ScriptedChild("works on"))

    def rewrite(connection: Connection) -> None:
        query = "SELECT turn FROM sessions WHERE id = ?"
        turn = json.loads(connection.execute(query, (session_id,)).fetchone()[0])
        del turn["is_repeated"]
        connection.execute(
            "UPDATE sessions SET turn = ? WHERE id = ?",
            (json.dumps(turn | {"is_prompted": True}), session_id),
        )

    await database.write(rewrite)
    again = ScriptedChild("answers")
    events = await start_again(database, session_id, again)
    assert again.reloads == []
    assert types_of(events).count("session.error") == 1


async def test_a_prompt_that_two_processes_died_with_is_not_sent_a_third_time(
    database: Store,
) -> None:
    """It may be what kills them."""
    first = ScriptedChild("works on")
    session_id = await killed_after_the_prompt(database, first)
    second = ScriptedChild("works on")
    engine = make_engine(database, second)
    await engine.recover()
    await until(lambda: second.prompts)
    await engine._tasks.close()
    third = ScriptedChild("answers")
    events = await start_again(database, session_id, third)
    assert (second.prompts, third.prompts) == (first.prompts, [])
    assert types_of(events).count("session.error") == 1


async def test_a_prompt_that_was_never_sent_is_sent_by_the_next_start(
    database: Store,
) -> None:
    """The sidecar is stopped while it waits for the child: nothing is lost."""
    child = ScriptedChild()
    child.is_back.clear()
    child.is_first_boot_ready = False
    session_id, engine = await new_session(database), make_engine(database, child)
    await send(engine, session_id, user_message("go"))
    await until(lambda: child.reloads)
    await engine.drain(0.1)
    assert child.prompts == []

    again = ScriptedChild("answers")
    after = make_engine(database, again)
    await after.recover()
    await _shown(database, session_id, "session.status_idle")
    await after.drain(0.1)
    assert text_of(await history(database, session_id)) == "here"
