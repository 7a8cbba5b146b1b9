"""Twirp (version 7 of its wire protocol): finds the method of a request, checks its token, and answers.

Who calls it: Starlette, for every request below `/twirp/`. The order of the checks is livekit-server's: a bad token,
the route, the content type, the body, the grant. The body is read only if the token has some grant of the API.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from signaling.api.answers import Answered, Answers
from signaling.api.bodies import Bodies
from signaling.api.callers import bearer, query, wait_for_turn
from signaling.api.encoding import Answer, Encoding, decode, pieces
from signaling.api.errors import ApiError, invalid, refused, unauthenticated
from signaling.api.grants import Grant, may_call_something
from signaling.api.repeats import HEADER, MAX_ID_CHARACTERS, Key, Repeats
from signaling.errors import RequestRefused, TooMuchKept
from signaling.http.bounds import Entries, TooManyEntries
from signaling.http.shares import Share
from signaling.http.tokens import Claims, hash_body
from signaling.rooms.node import Node

PREFIX = "/twirp"
PACKAGE = "livekit"
OK, UNKNOWN = "ok", "unknown"
"""The code of a call that succeeded, and the name of one that does not exist, as they are counted."""

log = structlog.get_logger("signaling.api")


@dataclass(frozen=True, slots=True)
class Method:
    """One call of a service."""

    request: type[Message]
    """The message that it takes."""
    grant: Grant
    """Who may make it."""
    perform: Callable[[Any], Answer | Awaitable[Message]]
    """Does it and returns the answer. Raises `ApiError`, or `RequestRefused` as to a client."""
    creates: bool = False
    """A repeated request must not do it twice."""


Services = Mapping[str, Mapping[str, Method]]
"""Name of a service -> name of a method -> the method."""


class Twirp:
    """The ASGI application of the API."""

    def __init__(self, services: Services, node: Node) -> None:
        """Serve the methods of `services`, to tokens of the API keys of the node's configuration."""
        self._node = node
        self._methods = {
            f"{PACKAGE}.{service}/{name}": (method, Entries(method.request))
            for service, methods in services.items()
            for name, method in methods.items()
        }
        self._bodies = Bodies(node.dropped)
        self._answers = Answers(node.dropped)
        self._repeats = Repeats(lambda: node.clock(), node.dropped)

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the API, also below the path prefix of a proxy that does not remove it."""
        return [Route(f"{prefix}{PREFIX}/{{call:path}}", self) for prefix in ("", "/{prefix:path}")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Errors are JSON whatever the request was, since SDKs read them so."""
        request = Request(scope, receive)
        response: Response
        with self._answers.one() as answer:
            try:
                response = await self._answer(request, answer)
                self._note(request, OK)
            except ApiError as error:
                response = JSONResponse(error.body, error.status)
                self._note(request, error.code, error.text)
            except Exception:
                log.exception("an API call failed", call=request.path_params["call"])
                response = JSONResponse(ApiError("internal", "internal error").body, 500)
                self._note(request, "internal")
            await response(scope, receive, send)

    def _note(self, request: Request, code: str, text: str = "") -> None:
        """Count a call by the code of its answer."""
        call: str = request.path_params["call"]
        known = call.removeprefix(f"{PACKAGE}.") if call in self._methods else UNKNOWN
        self._node.api_calls[known, code] += 1
        log.debug("API call", call=known, code=code, reason=text)

    async def _answer(self, request: Request, into: Answered) -> Response:
        claims = self._claims(request)
        name: str = request.path_params["call"]
        encoding = Encoding.of(request.headers.get("content-type", ""))
        if request.method != "POST":
            raise _bad_route(request, f'unsupported method "{request.method}" (only POST is allowed)')
        if name not in self._methods:
            raise _bad_route(request, f'no handler for path "{request.url.path}"')
        if encoding is None:
            raise _bad_route(request, f'unexpected Content-Type: "{request.headers.get("content-type", "")}"')
        if claims is None:
            raise unauthenticated()
        if not request.app.state.ready:
            raise ApiError("unavailable", "the server is starting or stopping")
        if not may_call_something(claims):
            raise unauthenticated()
        async with self._bodies.read(request, claims.who) as body:
            if not _is_for(claims, body):
                raise ApiError("unauthenticated", "the token is for another body")
            share = await self._wait(claims)
            with share.charged():
                answer = self._perform(name, claims, body, encoding, request.headers.get(HEADER, ""))
        del body  # which counts as held no more, and so must not be: a call of a participant may take minutes
        try:
            known = await answer if isinstance(answer, Awaitable) else answer
        except RequestRefused as error:
            raise refused(error) from error
        await self._write(known, encoding, share, into)
        return into.response(encoding.value)

    async def _write(self, answer: Answer, encoding: Encoding, share: Share, into: Answered) -> None:
        """Write an answer. The caller pays for it, and gives way to others while it is written."""
        left = pieces(answer, encoding)
        while True:
            with share.charged():
                piece = next(left, None)
            if piece is None:
                return
            into.add(piece)
            await wait_for_turn(share, self._node.dropped)

    def _claims(self, request: Request) -> Claims | None:
        """Return what the token says; None: there is no token."""
        if not request.headers.get("authorization") and not query(request).get("access_token"):
            return None
        return bearer(request, self._node.config.keys)

    async def _wait(self, claims: Claims) -> Share:
        """Wait until it is the turn of this caller, and count its request."""
        share = self._node.callers.share(claims.who)
        await wait_for_turn(share, self._node.dropped)
        share.note()
        return share

    def _perform(
        self, name: str, claims: Claims, body: bytes, encoding: Encoding, request_id: str
    ) -> Answer | Awaitable[Message]:
        method, entries = self._methods[name]
        message = method.request()
        decode(body, message, encoding)
        try:
            entries.check(message)
        except TooManyEntries as error:
            self._node.dropped["requests_with_too_many_entries"] += 1
            raise invalid(str(error)) from error
        if not method.grant(claims, message):
            raise unauthenticated()
        key: Key | None = None
        if method.creates and 0 < len(request_id) <= MAX_ID_CHARACTERS:
            key = claims.api_key, name, claims.video.room, request_id
            if (before := self._repeats.find(key)) is not None:
                return before
        try:
            answer = method.perform(message)
        except RequestRefused as error:
            raise refused(error) from error
        except TooMuchKept as error:
            raise ApiError("resource_exhausted", "rooms keep too much metadata or too many agents") from error
        if key is not None and isinstance(answer, Message):
            self._repeats.keep(key, answer)
        return answer


def _bad_route(request: Request, text: str) -> ApiError:
    return ApiError("bad_route", text, {"twirp_invalid_route": f"{request.method} {request.url.path}"})


def _is_for(claims: Claims, body: bytes) -> bool:
    """Tell whether a token is for this body. One that names no hash is for every body."""
    wanted = claims.body_hash
    return not wanted or hmac.compare_digest(wanted.encode(), hash_body(body).encode())
