"""The facts in the order in which they are checked, and running them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from sidecar.compat import config_facts, history_facts, retry_facts, turn_facts, wall_facts
from sidecar.compat.bench import CompatBench, FactError
from sidecar.errors import SidecarError

Check = Callable[[CompatBench], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    config_facts.version,
    config_facts.routes,
    config_facts.first_load_is_quick,
    config_facts.only_our_provider,
    config_facts.references_are_resolved,
    config_facts.project_config_is_ignored,
    config_facts.config_is_read_per_directory,
    config_facts.dispose_reaches_one_directory,
    config_facts.broken_config_is_400,
    turn_facts.busy_then_idle,
    turn_facts.tool_step_is_no_end,
    turn_facts.shells_have_what_the_plugin_gives,
    turn_facts.parent_is_our_message,
    turn_facts.session_header,
    turn_facts.system_is_of_one_prompt,
    turn_facts.unknown_model,
    turn_facts.abort_sequence,
    turn_facts.prompt_replaces_itself,
    turn_facts.permission_is_asked,
    turn_facts.rejection_with_a_message,
    turn_facts.denied_tools_are_not_offered,
    turn_facts.mcp_is_added_live,
    retry_facts.words_are_tried_again,
    retry_facts.hidden_words_are_not_tried_again,
    retry_facts.list_of_words_is_the_known_one,
    wall_facts.the_shell_is_ours,
    wall_facts.searches_run_from_the_path,
    wall_facts.external_directory_is_obeyed,
    history_facts.history_moves,
    history_facts.a_gap_is_refused,
    turn_facts.history_survives,
    config_facts.nothing_was_installed,
)
"""Those that count the models come before the one that adds some; the one that restarts comes late."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found. `problem` is None when the fact holds."""

    name: str
    fact: str
    problem: str | None
    seconds: float


def fact_of(check: Check) -> str:
    """Return the fact in words: the check's docstring."""
    return " ".join((check.__doc__ or "").split())


async def run_checks(bench: CompatBench, checks: Sequence[Check] = CHECKS) -> AsyncIterator[Result]:
    """Check one fact after the other; one that fails does not keep the rest from being checked."""
    for check in checks:
        began = time.monotonic()
        problem: str | None = None
        try:
            await check(bench)
        except FactError as error:
            problem = str(error)
        except SidecarError as error:
            problem = f"opencode: {error.message}"
        except (LookupError, TypeError, ValueError) as error:
            # An event or an answer of another shape than ours is what this is looking for.
            _log.debug("check stumbled", check=check.__name__, exc_info=error)
            problem = f"an answer has another shape: {type(error).__name__}: {error}"
        yield Result(check.__name__, fact_of(check), problem, time.monotonic() - began)
