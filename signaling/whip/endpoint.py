"""WHIP and WHEP over HTTP: the endpoint to which a client posts its offer, and the session that it gets.

Who calls it: Starlette, for every method on the paths of `routes`. WHIP is RFC 9725, WHEP draft-ietf-wish-whep-03; they
differ in the direction of media. A token is an ordinary one for joining a room.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast
from urllib.parse import quote

import structlog
from livekit.protocol.models import CAMERA, TrackSource
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from signaling.api.bodies import Bodies
from signaling.api.callers import wait_for_turn
from signaling.api.errors import ApiError
from signaling.http.join import JoinError, JoinParameters, query_of
from signaling.http.server import join_parameters
from signaling.http.shares import Share
from signaling.rooms.node import Node
from signaling.whip.fragments import read_fragment
from signaling.whip.ice_links import ice_links
from signaling.whip.offers import NOMINAL_SIZE, Publication, read_offer
from signaling.whip.problems import Problem, problem_of
from signaling.whip.sessions import Session, Sessions
from signaling.whip.showing import PlayRequest

WHIP_PATH, WHEP_PATH = "/whip/v1", "/whep/v1"
SDP_TYPE, FRAGMENT_TYPE = "application/sdp", "application/trickle-ice-sdpfrag"
MAX_OFFER_BYTES = 128 * 1024
"""Bytes of an offer; browsers need 10 KiB for one audio and one video."""
MAX_FRAGMENT_BYTES = 64 * 1024
"""Bytes of an SDP fragment, which has a line for each candidate."""
RETRY_AFTER_S = 5
"""Seconds after which a client may try again that was refused because the server or the room is full."""
MAX_SIDE = 16_384
"""The width and height of a picture that a client may name, in pixels."""
SOURCES: dict[str, TrackSource] = {name.lower(): cast("TrackSource", number) for name, number in TrackSource.items()}

ANY_TAG = ("*", '"*"')
"""What stands for every entity-tag in `If-Match`: a star (RFC 9110 section 13.1.1), also in quotes, as drafts of WHIP
and WHEP have it in examples, which clients have copied."""

Handler = Callable[[Request], Awaitable[Response]]

log = structlog.get_logger("signaling.whip")


@dataclass(frozen=True, slots=True)
class Services:
    """What both endpoints share."""

    node: Node
    sessions: Sessions
    bodies: Bodies


def routes(node: Node, sessions: Sessions) -> list[BaseRoute]:
    """Return the routes of both endpoints, also below the path prefix of a proxy that does not remove it."""
    services = Services(node, sessions, Bodies(node.dropped))
    endpoints = ((WHIP_PATH, Endpoint(services, plays=False)), (WHEP_PATH, Endpoint(services, plays=True)))
    return [
        Route(f"{prefix}{path}{name}", endpoint)
        for path, endpoint in endpoints
        for prefix in ("", "/{prefix:path}")
        for name in ("", "/{name}")
    ]


class Endpoint:
    """The ASGI application of WHIP, or of WHEP, with its sessions."""

    def __init__(self, services: Services, *, plays: bool) -> None:
        """`plays` says whether clients receive (WHEP) or send (WHIP)."""
        self._services = services
        self._plays = plays
        # GET has no representation yet, but must succeed (RFC 9725 section 4.1).
        self._of_endpoint: dict[str, Handler] = {"POST": self._create, "OPTIONS": self._options, "GET": _nothing}
        self._of_session: dict[str, Handler] = {
            "PATCH": self._patch,
            "DELETE": self._delete,
            "OPTIONS": self._options,
            "GET": _nothing,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. What fails is told as a problem, and costs its own client only."""
        request = Request(scope, receive)
        response: Response
        try:
            response = await self._answer(request)
        except Problem as error:
            response = error.response()
        except (JoinError, ApiError) as error:
            response = problem_of(error).response()
        except Exception:
            log.exception("a request of WHIP or WHEP failed")
            response = Problem(500, "internal error").response()
        if response.status_code >= 400 and request.method != "GET":
            log.info("request refused", method=request.method, status=response.status_code, plays=self._plays)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        handlers = self._of_session if "name" in request.path_params else self._of_endpoint
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise Problem(405, "the method is not allowed here", {"Allow": ", ".join((*handlers, "HEAD"))})
        return await handler(request)

    async def _options(self, request: Request) -> Response:
        """Say what may be posted. Preflights of browsers are answered before they come here.

        Who may join now is also told of STUN and TURN servers: not every client can use those of a 201.
        """
        if "name" in request.path_params:
            return PlainTextResponse("", headers={"Accept-Patch": FRAGMENT_TYPE})
        response = PlainTextResponse("", headers={"Accept-Post": SDP_TYPE})
        if "authorization" in request.headers or "access_token" in query_of(request):
            join = self._join(request)
            share = self._share(join)
            await wait_for_turn(share, self._services.node.dropped)
            share.note()
            with share.charged():
                request.app.state.rooms.validate(join)
                # Nobody has joined yet, so the credentials carry a sid of their own.
                self._add_links(response, self._services.node.turn.guest(join.room, join.claims.who))
        return response

    def _add_links(self, response: Response, sid: str) -> None:
        """Tell the client of the servers with which it may gather candidates, as the participant with this sid."""
        for link in ice_links(self._services.node.ice_servers(sid)):
            response.headers.append("Link", link)

    async def _create(self, request: Request) -> Response:
        joins = request.app.state.joins
        try:
            session, answer = await self._open(request)
        except (Problem, JoinError, ApiError) as error:
            joins.refused(error.status)
            if error.status == 503:
                problem = error if isinstance(error, Problem) else problem_of(error)
                raise Problem(503, problem.text, {"Retry-After": str(RETRY_AFTER_S)}) from error
            raise
        joins.accepted(resumed=False)
        headers = {
            "Location": _location(request, session),
            "ETag": session.tag,
            "Accept-Patch": FRAGMENT_TYPE,
        }
        response = Response(answer, 201, headers, SDP_TYPE)
        self._add_links(response, session.participant.sid)
        return response

    async def _open(self, request: Request) -> tuple[Session, str]:
        join = self._join(request)
        source, size = _source(request), _size(request)
        participant = query_of(request).get("participant", "")
        if len(participant.encode()) > self._services.node.config.limits.identity_bytes:
            raise Problem(400, "there is no participant with such an identity")
        async with self._body(request, join, SDP_TYPE, MAX_OFFER_BYTES) as text:
            share = self._share(join)
            await wait_for_turn(share, self._services.node.dropped)
            with share.charged():
                offer = read_offer(text, publishes=not self._plays)
            if not self._plays:
                return await self._services.sessions.publish(join, offer, Publication(source, size))
            return await self._services.sessions.play(join, offer, PlayRequest(participant, source))

    async def _patch(self, request: Request) -> Response:
        """Take candidates, or restart ICE if the client has new credentials (RFC 9725 section 4.3)."""
        join = self._join(request)
        self._find(request, join)
        async with self._body(request, join, FRAGMENT_TYPE, MAX_FRAGMENT_BYTES) as text:
            share = self._share(join)
            await wait_for_turn(share, self._services.node.dropped)
            share.note()
            with share.charged():
                session = self._find(request, join)  # it may have ended meanwhile
                _check_tag(request.headers.get("if-match", ""), session)
                answer = self._services.sessions.restart(session, read_fragment(text))
        if answer is None:
            return Response(status_code=204)
        return Response(answer, 200, {"ETag": session.tag}, FRAGMENT_TYPE)

    async def _delete(self, request: Request) -> Response:
        join = self._join(request)
        session = self._find(request, join)
        with self._share(join).charged():
            self._services.sessions.end(session)
        return PlainTextResponse("")

    def _share(self, join: JoinParameters) -> Share:
        return self._services.node.callers.share(join.claims.who)

    def _find(self, request: Request, join: JoinParameters) -> Session:
        return self._services.sessions.find(request.path_params["name"], join, plays=self._plays)

    def _join(self, request: Request) -> JoinParameters:
        """Return the join that a request's token allows. What only clients with a WebSocket may ask for is left out.

        Raises:
            JoinError: the token is bad, or allows no join.
        """
        join = join_parameters(request)
        return replace(
            join,
            single_pc=True,
            auto_subscribe=False,
            adaptive_stream=False,
            reconnect=False,
            publisher_offer=None,
            add_track_requests=(),
            sync_state=None,
        )

    @asynccontextmanager
    async def _body(self, request: Request, join: JoinParameters, media_type: str, longest: int) -> AsyncIterator[str]:
        """Read the text of a request's body. It counts as held until the context ends, also while its client waits.

        Raises:
            Problem: 400: it is empty or no UTF-8; 415: it is of another type.
            ApiError: it is too long, or does not come in time.
        """
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != media_type:
            accepted = "Accept-Patch" if media_type == FRAGMENT_TYPE else "Accept-Post"
            raise Problem(415, f"the content type is not {media_type}", {accepted: media_type})
        async with self._services.bodies.read(request, join.claims.who, longest) as body:
            try:
                text = body.decode()
            except UnicodeDecodeError as error:
                raise Problem(400, "the body is no UTF-8") from error
            if not text.strip():
                raise Problem(400, "the body is empty")
            yield text


def _location(request: Request, session: Session) -> str:
    """Return where a session is, below a prefix that a proxy did not remove.

    It names the room if the request did, for tokens that name none.
    """
    room = query_of(request).get("room", "")
    query = f"?room={quote(room, safe='')}" if room == session.participant.room_name else ""
    return f"{quote(request.scope['path'])}/{session.name}{query}"


async def _nothing(request: Request) -> Response:
    return Response(status_code=204)


def _source(request: Request) -> TrackSource:
    """Return the source that the query names, by default a camera.

    Raises:
        Problem: 400: there is no source of this name.
    """
    name = query_of(request).get("source", "")
    if not name:
        return CAMERA
    if name not in SOURCES:
        raise Problem(400, "there is no such source")
    return SOURCES[name]


def _size(request: Request) -> tuple[int, int]:
    """Return the width and height that the query names, in pixels; by default `NOMINAL_SIZE`.

    Raises:
        Problem: 400: they are no such numbers.
    """
    given = [query_of(request).get(name, "") for name in ("width", "height")]
    if not any(given):
        return NOMINAL_SIZE
    if not all(text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= MAX_SIDE for text in given):
        raise Problem(400, f"width and height are needed together, from 1 to {MAX_SIDE}")
    return int(given[0]), int(given[1])


def _check_tag(given: str, session: Session) -> None:
    """Check `If-Match` of a request about an ICE session (RFC 9110 section 13.1.1, RFC 6585 section 3).

    Raises:
        Problem: 428: there is none; 412: it names another ICE session.
    """
    if not given.strip():
        raise Problem(428, "If-Match with the entity-tag of the ICE session is needed")
    tags = {tag.strip() for tag in given.split(",")}
    if not tags & {*ANY_TAG, session.tag}:
        raise Problem(412, "the entity-tag is not that of the ICE session")
