"""The console: its parts, its routes, what it hears of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aiohttp import web

from sidecar.config import Settings
from sidecar.console.recent import Recent
from sidecar.console.routes import Console, Parts
from sidecar.console.sign_in import Attempts, SignIns
from sidecar.http.admin import AdminApi
from sidecar.http.agents_kept_out import refuse_agents
from sidecar.instruments import Reading, Sources
from sidecar.masking import masked_urls
from sidecar.wiring.child import ChildParts
from sidecar.wiring.domain import Domain


def console_routes(
    settings: Settings,
    api: Sequence[web.RouteDef],
    *,
    gateway_url: str,
    child: ChildParts,
    domain: Domain,
    sources: Sources,
    admin: AdminApi,
    attempts: Attempts,
) -> list[web.RouteDef]:
    """Return the console's routes, none when it is switched off. `api` has the API's own."""
    if not settings.console.is_enabled:
        return []
    recent = Recent(kept_turns=settings.console.recent_turns)
    recent.listen(sources.engine, sources.supervisor, sources.relay)
    key, shared = settings.http.runtime_api_key, settings.cluster.key
    # Without an inbound key pods share only their own: a form of one is then valid in the others.
    secret = key or shared
    sign_ins = SignIns(
        key=key.get_secret_value().encode() if key else None,
        secret=secret.get_secret_value().encode() if secret else None,
        lifetime_seconds=settings.console.session_seconds,
    )
    # Without a key the whole listener refuses agents already.
    is_refusing = key is not None and settings.confinement.mode != "off"
    console = Console(
        Parts(
            sources=sources,
            admin=admin,
            sessions=domain.sessions,
            agents=domain.agents,
            environments=domain.environments,
            recent=recent,
            confinement=child.confinement.describe(),
            gateway_url=masked_urls(gateway_url),
        ),
        sign_ins=sign_ins,
        attempts=attempts,
        refuse_agents=refuse_agents() if is_refusing else None,
    )
    return console.routes(api)


def sign_in_readings(attempts: Attempts) -> Iterator[Reading]:
    """Yield what failed and what was refused."""
    text = "Attempts to sign in to the console with a wrong key."
    yield Reading("console_sign_in_failures", text, attempts.failed)
    text = (
        "Attempts to sign in to the console whose key was not looked at, for too many had failed."
    )
    yield Reading("console_sign_ins_refused", text, attempts.refused)
