"""Who is let into the console, and the headers of every answer.

- A page or a call needs the cookie of a session, see `sign_in`. Without an inbound key a page gives one to
  all that may reach it: `origin_check` and `agents_kept_out` guard that listener already.
- A request that changes something needs three things that a page of another site does not have: the cookie,
  which is SameSite=Strict; an `Origin` or `sec-fetch-site` of our own; the token of the session.
- Processes that an agent has started are refused whatever they carry: cookies are shared by all ports of a
  host, so a page that an agent serves on this machine could be sent one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, quote

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from sidecar.console.sign_in import ConsoleSession, SignIns
from sidecar.errors import (
    AuthenticationError,
    InvalidRequestError,
    PermissionDeniedError,
    SidecarError,
)
from sidecar.http.bodies import read_body
from sidecar.http.middleware import CONSOLE_ROOT, as_sidecar_error
from sidecar.http.origin_check import is_from_other_site

ROOT = CONSOLE_ROOT
TOKEN_HEADER = "x-console-token"  # noqa: S105  # the name of a header

SESSION = web.RequestKey("console_session", ConsoleSession)
FORM = web.RequestKey("console_form", dict[str, str])
"""The fields of a form, once its token was right."""

ErrorPage = Callable[[web.Request, SidecarError], Awaitable[web.Response]]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing inline, nothing from elsewhere, no frame; and no markup made from text: the browser refuses
`innerHTML` and its like to our own script, too."""

_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # not `no-referrer`: forms would be sent with `Origin: null`
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_MAX_FIELDS = 20


class Guard:
    """Wraps the console's handlers: each of them in exactly one of `page`, `call` and `public`."""

    def __init__(
        self, sign_ins: SignIns, *, error_page: ErrorPage, refuse_agents: Middleware | None
    ) -> None:
        self._sign_ins = sign_ins
        self._error_page = error_page
        self._refuse_agents = refuse_agents

    def public(self, handler: Handler) -> Handler:
        """Let all in, signed in or not, with errors as pages; changes only from our own pages."""

        async def handle(request: web.Request) -> web.StreamResponse:
            _check_origin(request)
            return await handler(request)

        return self._with_pages(handle)

    def page(self, handler: Handler) -> Handler:
        """Require a session; without one the answer leads to the sign-in. A form has its token in `token`."""

        async def handle(request: web.Request) -> web.StreamResponse:
            _check_origin(request)
            session = self.session_of(request)
            if session is not None:
                request[SESSION] = session
                if request.method not in _READS:
                    request[FORM] = form = await read_form(request)
                    self._check_token(session, form.get("token", ""))
                return await handler(request)
            if not self._sign_ins.is_open:
                after = request.path_qs if request.method in _READS else ROOT
                return redirect(f"{ROOT}/sign-in?next={quote(after, safe='/')}")
            if request.method not in _READS:
                raise PermissionDeniedError("this form is of no session; load the page again")
            request[SESSION] = session = self._sign_ins.begin(time.time())
            response = await handler(request)
            self.set_cookie(request, response, session)
            return response

        return self._with_pages(handle)

    def call(self, handler: Handler) -> Handler:
        """Require a session, for the script. Errors are the API's. Changes have the token in a header."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if is_from_other_site(request):
                raise PermissionDeniedError("refused to a page of another site in a browser")
            session = self.session_of(request)
            if session is None:
                raise AuthenticationError("not signed in, or no longer; load the page again")
            request[SESSION] = session
            if request.method not in _READS:
                _check_origin(request)
                self._check_token(session, request.headers.get(TOKEN_HEADER, ""))
            return await handler(request)

        async def answer(request: web.Request) -> web.StreamResponse:
            return _with_headers(await self._without_agents(handle, request))

        return answer

    def session_of(self, request: web.Request) -> ConsoleSession | None:
        """Return the session of the request's cookie, None without a valid one."""
        text = request.cookies.get(_cookie_name(request))
        return self._sign_ins.read(text, time.time()) if text else None

    def set_cookie(
        self, request: web.Request, response: web.StreamResponse, session: ConsoleSession
    ) -> None:
        """Have the browser keep the session: for the console's paths only, unreadable for scripts."""
        response.set_cookie(
            _cookie_name(request),
            self._sign_ins.text_of(session),
            path=ROOT,
            max_age=self._sign_ins.lifetime_seconds,
            httponly=True,
            samesite="Strict",
            secure=_is_https(request),
        )

    def end(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the request's session."""
        self._sign_ins.end(request[SESSION])
        response.del_cookie(
            _cookie_name(request),
            path=ROOT,
            httponly=True,
            samesite="Strict",
            secure=_is_https(request),
        )

    def _check_token(self, session: ConsoleSession, offered: str) -> None:
        if not self._sign_ins.is_token(session, offered):
            raise PermissionDeniedError("this form is of another session; load the page again")

    def _with_pages(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return _with_headers(await self._without_agents(handler, request))
            except Exception as error:  # mapped as everywhere, shown as a page
                mapped = as_sidecar_error(error, request)
                return _with_headers(await self._error_page(request, mapped))

        return handle

    async def _without_agents(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        if self._refuse_agents is None:
            return await handler(request)
        return await self._refuse_agents(request, handler)


def redirect(location: str) -> web.Response:
    """Answer with another page, to be read with GET."""
    return web.Response(status=303, headers={hdrs.LOCATION: location})


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form. Raises InvalidRequestError, and as `read_body`."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise InvalidRequestError("the body must be a form (application/x-www-form-urlencoded)")
    try:
        text = (await read_body(request)).decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError as error:
        raise InvalidRequestError(f"the form cannot be read: {error}") from error


def _check_origin(request: web.Request) -> None:
    """Raise PermissionDeniedError for a change that does not come from one of our own pages."""
    if request.method in _READS:
        return
    says_origin = hdrs.ORIGIN in request.headers or "sec-fetch-site" in request.headers
    if not says_origin or is_from_other_site(request):
        raise PermissionDeniedError("the console is changed from its own pages only")


def _with_headers(response: web.StreamResponse) -> web.StreamResponse:
    if not response.prepared:
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    return response


def _cookie_name(request: web.Request) -> str:
    """Return the name. Cookies are shared by all ports of a host, and so would be those of two sidecars."""
    return f"sidecar_console_{request.url.port or 0}"


def _is_https(request: web.Request) -> bool:
    """Whether the browser speaks HTTPS, to us or to a proxy. A wrong claim costs only who makes it."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return request.secure or forwarded == "https"
