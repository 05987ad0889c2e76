"""The pages: each reads what it shows from the parts and hands it to its template."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import structlog
from aiohttp import hdrs, web

from sidecar.console import chart, views
from sidecar.console.guard import FORM, ROOT, SESSION, Guard, read_form, redirect
from sidecar.console.rendering import Renderer
from sidecar.console.sign_in import Attempts, SignIns
from sidecar.errors import (
    GatewayError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    SidecarError,
)
from sidecar.gateway.catalogue import CatalogueEntry, CatalogueSnapshot
from sidecar.http.middleware import REQUEST_ID
from sidecar.http.operations import PathId
from sidecar.http.queries import ListQuery, OneOf, QueryModel, WholeNumber, parse, read_query
from sidecar.http.routes import check_method
from sidecar.managed.common.pagination import Query
from sidecar.managed.sessions.service import Filters
from sidecar.wire.agents import AgentCreate
from sidecar.wire.environments import EnvironmentCreate
from sidecar.wire.sessions import SessionCreate

if TYPE_CHECKING:
    from sidecar.console.routes import Parts

_MODELS_PER_PAGE = 100
_SESSIONS_PER_PAGE = 50
_SESSION_ID = PathId("sesn", "session")
_QUERY_CHARS = 200
_OFFERED_MODELS = 1000
_TABLE_ROWS = 15
_LATELY_SECONDS = 600.0
_MARK = {"made_by": "console"}
"""Metadata of the agent and the environment that sessions of Try it use."""
_MARKED_PAGE = 100
_TITLE_CHARS = 80
_STATUSES = ("running", "idle", "rescheduling", "terminated")
_TOOLS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "ask": (
        "ask before commands and changes",
        [
            {
                "type": "agent_toolset_20260401",
                "configs": [
                    {"name": name, "permission_policy": {"type": "always_ask"}}
                    for name in ("bash", "write", "edit")
                ],
            }
        ],
    ),
    "allow": ("run without asking", [{"type": "agent_toolset_20260401"}]),
    "none": ("no tools", []),
}

_log = structlog.get_logger(__name__)


class ModelsQuery(QueryModel):
    """Query of the models' page."""

    q: str = ""
    page: Annotated[int, WholeNumber(1, 10_000_000)] = 1


class SessionsQuery(ListQuery):
    """Query of the sessions' page."""

    status: Annotated[str, OneOf(("", *_STATUSES))] = ""
    archived: Annotated[str, OneOf(("", "1"))] = ""
    limit: Annotated[int, WholeNumber(1, _SESSIONS_PER_PAGE)] = _SESSIONS_PER_PAGE


class Pages:
    """Handlers of the pages and their forms."""

    def __init__(
        self,
        parts: Parts,
        *,
        renderer: Renderer,
        guard: Guard,
        sign_ins: SignIns,
        attempts: Attempts,
    ) -> None:
        self._parts = parts
        self._renderer = renderer
        self._guard = guard
        self._sign_ins = sign_ins
        self._attempts = attempts

    async def status(self, request: web.Request) -> web.Response:
        """`GET /console`."""
        recent, now = self._parts.recent, time.time()
        state = self._parts.admin.describe()
        lately = [turn for turn in recent.turns if turn.at > now - _LATELY_SECONDS]
        failed = sum(turn.outcome == "failed" for turn in lately)
        values = {
            "notes": views.notes(state, self._parts.confinement, failed=failed, turns=len(lately)),
            "state": state,
            "confinement": self._parts.confinement,
            "gateway_url": self._parts.gateway_url,
            "chart": chart.draw(recent.turns, recent.requests, now, kept=recent.kept_turns),
            "size": chart,
            "turns": list(reversed(recent.turns))[:_TABLE_ROWS],
            "troubles": list(reversed(recent.troubles)),
        }
        return self._page(request, "status.html", "status", values)

    async def models(self, request: web.Request) -> web.Response:
        """`GET /console/models?q=&page=`."""
        wanted = read_query(request, ModelsQuery)
        query, page = wanted.q[:_QUERY_CHARS], wanted.page
        listed: list[CatalogueEntry] = []
        hidden: list[CatalogueEntry] = []
        if (snapshot := self._snapshot) is not None:
            listed, hidden = await asyncio.to_thread(views.search, snapshot, query)
        pages = max(1, -(-max(len(listed), len(hidden)) // _MODELS_PER_PAGE))
        shown = slice((page - 1) * _MODELS_PER_PAGE, page * _MODELS_PER_PAGE)
        values = {
            "query": query,
            "listed": [views.model_view(entry) for entry in listed[shown]],
            "hidden": [views.model_view(entry) for entry in hidden[shown]],
            "listed_count": len(listed),
            "hidden_count": len(hidden),
            "page": page,
            "pages": pages,
            "gateway": self._parts.admin.describe()["gateway"],
            "gateway_url": self._parts.gateway_url,
            "sources": views.SOURCES,
        }
        return self._page(request, "models.html", "models", values)

    async def refresh(self, _request: web.Request) -> web.Response:
        """`POST /console/models/refresh`: read the gateway's lists now. The page shows why it failed."""
        try:
            await self._parts.sources.catalogue.refresh()
        except GatewayError as error:
            _log.info("refresh from the console failed", error=error.message)
        return redirect(f"{ROOT}/models")

    async def sessions(self, request: web.Request) -> web.Response:
        """`GET /console/sessions?status=&archived=&page=`, newest first."""
        wanted = read_query(request, SessionsQuery)
        filters = Filters(
            statuses=[wanted.status] if wanted.status else (),
            include_archived=wanted.archived == "1",
        )
        page = await self._parts.sessions.records(wanted.paging(), filters)
        snapshot = self._snapshot
        values = {
            "sessions": [views.session_view(record, snapshot) for record in page.records],
            "status": wanted.status,
            "statuses": _STATUSES,
            "archived": filters.include_archived,
            "next_page": page.next_page,
            "prev_page": page.prev_page,
        }
        return self._page(request, "sessions.html", "sessions", values)

    async def session(self, request: web.Request) -> web.Response:
        """`GET /console/sessions/{id}`: what is known of it; the script reads its events."""
        record = await self._parts.sessions.record(_SESSION_ID.read(request))
        values = {"session": views.session_view(record, self._snapshot)}
        return self._page(request, "session.html", "sessions", values)

    async def show_try(self, request: web.Request) -> web.Response:
        """`GET /console/try?model=`."""
        snapshot = self._snapshot
        default = next(iter(snapshot.listed), "") if snapshot else ""
        form = {"model": request.query.get("model", default), "tools": "ask", "text": ""}
        return self._try_page(request, form)

    async def start_try(self, request: web.Request) -> web.Response:
        """`POST /console/try`: a new session with the first message; then its page."""
        form = {"model": "", "tools": "ask", "text": ""} | request[FORM]
        try:
            session_id = await self._start(form)
        except SidecarError as error:
            return self._try_page(request, form, error=error)
        return redirect(f"{ROOT}/sessions/{session_id}")

    async def show_sign_in(self, request: web.Request) -> web.Response:
        """`GET /console/sign-in?next=`."""
        after = _own_page(request.query.get("next", ""))
        if self._sign_ins.is_open or self._guard.session_of(request) is not None:
            return redirect(after)
        return self._page(request, "sign_in.html", "", {"next": after, "error": ""})

    async def sign_in(self, request: web.Request) -> web.Response:
        """`POST /console/sign-in`: the key for a session."""
        form = await read_form(request)
        after, address = _own_page(form.get("next", "")), request.remote or ""
        self._attempts.check(address, time.monotonic())
        if not self._sign_ins.is_key(form.get("key", "").strip()):
            self._attempts.note_failure(address, time.monotonic())
            _log.warning("sign-in to the console failed", address=address)
            values = {"next": after, "error": "This is not the sidecar's RUNTIME_API_KEY."}
            return self._page(request, "sign_in.html", "", values, status=401)
        response = redirect(after)
        self._guard.set_cookie(request, response, self._sign_ins.begin(time.time()))
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """`POST /console/sign-out`."""
        response = redirect(f"{ROOT}/sign-in")
        self._guard.end(request, response)
        return response

    async def static(self, request: web.Request) -> web.Response:
        """`GET /console/static/{name}`."""
        name = request.match_info["name"]
        found = self._renderer.static(name)
        if found is None:
            raise NotFoundError(f"the console has no file {name[:80]}")
        return found

    async def missing(self, request: web.Request) -> web.Response:
        """Any other path, or method: 404 or 405."""
        await check_method(request)
        raise NotFoundError(f"the console has no page {request.path[:200]}")

    def error(self, request: web.Request, error: SidecarError) -> web.Response:
        """Return the page for an error of any other."""
        values = {"error": error, "request_id": request[REQUEST_ID]}
        response = self._page(request, "error.html", "", values, status=error.status)
        if error.retry_after_seconds is not None:
            response.headers[hdrs.RETRY_AFTER] = str(max(1, round(error.retry_after_seconds)))
        if isinstance(error, MethodNotAllowedError):
            response.headers[hdrs.ALLOW] = error.allowed
        return response

    @property
    def _snapshot(self) -> CatalogueSnapshot | None:
        return self._parts.sources.catalogue.snapshot

    def _try_page(
        self, request: web.Request, form: dict[str, str], *, error: SidecarError | None = None
    ) -> web.Response:
        snapshot = self._snapshot
        values = {
            "form": form,
            "models": snapshot.listed[:_OFFERED_MODELS] if snapshot else (),
            "tools": [(name, words) for name, (words, _) in _TOOLS.items()],
            "error": error.message if error else "",
            "is_demo": self._parts.sources.is_demo_gateway,
        }
        return self._page(request, "try.html", "try", values, status=error.status if error else 200)

    async def _start(self, form: dict[str, str]) -> str:
        """Create the session; return its id. Raises as the API's own calls."""
        text, model = form["text"].strip(), form["model"].strip()
        if not text:
            raise InvalidRequestError("Write a message first.", field="text")
        if form["tools"] not in _TOOLS:
            raise InvalidRequestError("tools: choose one of those offered", field="tools")
        agent_id = await self._agent(model)
        wanted = parse(
            SessionCreate,
            {
                "agent": {
                    "type": "agent_with_overrides",
                    "id": agent_id,
                    "model": model,
                    "tools": _TOOLS[form["tools"]][1],
                },
                "environment_id": await self._environment(),
                "title": _title(text),
                "metadata": _MARK,
                "initial_events": [
                    {"type": "user.message", "content": [{"type": "text", "text": text}]}
                ],
            },
        )
        session = await self._parts.sessions.create(wanted)
        return str(session["id"])

    async def _agent(self, model: str) -> str:
        """Return the console's agent, made when there is none. Each session says its own model and tools."""
        page = await self._parts.agents.list(_marked(), include_archived=False)
        if (found := _first_marked(page)) is not None:
            return found
        body = {"name": "Console", "model": model, "metadata": _MARK}
        return (await self._parts.agents.create(parse(AgentCreate, body))).id

    async def _environment(self) -> str:
        page = await self._parts.environments.list(_marked(), include_archived=False)
        if (found := _first_marked(page)) is not None:
            return found
        body = {"name": "Console", "metadata": _MARK}
        return (await self._parts.environments.create(parse(EnvironmentCreate, body))).id

    def _page(
        self,
        request: web.Request,
        template: str,
        name: str,
        values: dict[str, Any],
        *,
        status: int = 200,
    ) -> web.Response:
        session = request.get(SESSION)
        common = {
            "current": name,
            "token": self._sign_ins.token_of(session) if session is not None else "",
            "can_sign_out": session is not None and not self._sign_ins.is_open,
        }
        return self._renderer.page(template, common | values, status=status)


def _title(text: str) -> str:
    """Return the first line, cut."""
    line = text.splitlines()[0]
    return (
        line if len(line) <= _TITLE_CHARS else f"{line[: _TITLE_CHARS - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def _marked() -> Query:
    return Query(select="", limit=_MARKED_PAGE)


def _first_marked(page: dict[str, Any]) -> str | None:
    marked = (item["id"] for item in page["data"] if item["metadata"] == _MARK)
    return next(marked, None)


def _own_page(path: str) -> str:
    """Return the path if it is one of the console's, else its first page: never another site."""
    is_own = path == ROOT or path.startswith((f"{ROOT}/", f"{ROOT}?"))
    return path if is_own and path.isascii() and path.isprintable() and "\\" not in path else ROOT
