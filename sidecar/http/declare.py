"""The decorators that declare a route at its handler, see `sidecar.http.operations`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import hdrs
from pydantic import BaseModel

from sidecar.errors import SidecarError
from sidecar.http.operations import ATTRIBUTE, Anything, Content, HeaderParameter, Operation

_F = TypeVar("_F", bound=Callable[..., Awaitable[Any]])


def get(
    path: str,
    *,
    response: Any = None,
    others: Mapping[int, Content] | None = None,
    raises: Sequence[type[SidecarError]] = (),
    headers: Sequence[HeaderParameter] = (),
    has_head: bool = True,
    name: str = "",
) -> Callable[[_F], _F]:
    """Declare a read. `name` distinguishes routes that share a handler.

    A stream has no HEAD: it would never end, and count as a reader.
    """
    return _declare(
        hdrs.METH_GET,
        path,
        response=response,
        others=others or {},
        raises=raises,
        headers=headers,
        has_head=has_head,
        name=name,
    )


def post(
    path: str,
    *,
    response: Any,
    status: int = 200,
    others: Mapping[int, Content] | None = None,
    raises: Sequence[type[SidecarError]] = (),
    has_content: bool = False,
    has_secrets: bool = False,
    is_body_optional: bool = False,
    body: type[BaseModel] | None = None,
) -> Callable[[_F], _F]:
    """Declare a write. `body` is for handlers that check the body's form and read nothing of it."""
    return _declare(
        hdrs.METH_POST,
        path,
        response=response,
        status=status,
        others=others or {},
        raises=raises,
        has_content=has_content,
        has_secrets=has_secrets,
        is_body_optional=is_body_optional or body is Anything,
        body=body,
    )


def delete(
    path: str, *, response: Any, raises: Sequence[type[SidecarError]] = ()
) -> Callable[[_F], _F]:
    """Declare a deletion."""
    return _declare(hdrs.METH_DELETE, path, response=response, raises=raises)


def _declare(
    method: str,
    path: str,
    *,
    response: Any,
    name: str = "",
    status: int = 200,
    others: Mapping[int, Content] | None = None,
    raises: Sequence[type[SidecarError]],
    headers: Sequence[HeaderParameter] = (),
    has_head: bool = False,
    has_content: bool = False,
    has_secrets: bool = False,
    is_body_optional: bool = False,
    body: type[BaseModel] | None = None,
) -> Callable[[_F], _F]:
    def declare(function: _F) -> _F:
        operation = Operation(
            method=method,
            path=path,
            attribute=function.__name__,
            name=name or function.__name__,
            description=function.__doc__ or "",
            response=response,
            status=status,
            others=others or {},
            raises=raises,
            headers=headers,
            has_head=has_head,
            has_content=has_content,
            has_secrets=has_secrets,
            is_body_optional=is_body_optional,
            body=body,
        )
        declared = (operation, *getattr(function, ATTRIBUTE, ()))
        setattr(function, ATTRIBUTE, declared)
        return function

    return declare
