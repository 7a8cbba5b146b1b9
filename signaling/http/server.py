"""HTTP and WebSocket: the routes, and what they answer before an upgrade.

Who calls it: `listener.py` runs the application; tests build it with rooms of their own. It knows requests and frames;
what a join means is decided by `registry.py`.
"""

import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from signaling.config.configuration import Config
from signaling.http.connection import SOCKET_GONE, SignalConnection
from signaling.http.join import MAX_NAME_LENGTH, JoinError, JoinParameters, RequestFacts, parse_join, query_of
from signaling.http.tokens import create
from signaling.metrics.numbers import Census, Joins
from signaling.turn.service import TurnService

PREFLIGHT_MAX_AGE_S = 86_400
HOST = re.compile(r"(?:\[(?P<ip6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::\d*)?")
"""A `Host` header (RFC 9110 section 7.2)."""
SUBPROTOCOL_JSON = "json"
"""The WebSocket subprotocol with which a client gets JSON from the first message on."""
DEMO_DIRECTORY = Path(__file__).parents[1] / "demo"

log = structlog.get_logger("signaling.http")


class Session(Protocol):
    """The part of `signaling.participants.session.Session` that this file uses."""

    async def run(self, connection: SignalConnection) -> None:
        """Serve the client until its socket ends."""

    def abandon(self) -> None:
        """Take back the admission, because the upgrade did not happen."""


class Rooms(Protocol):
    """The part of `signaling.registry.Rooms` that this file uses."""

    @property
    def turn(self) -> TurnService:
        """The TURN server, of which participants are told."""

    async def start(self) -> None:
        """Begin to accept participants."""

    async def stop(self) -> None:
        """End all rooms and remove everybody."""

    def admit(self, join: JoinParameters) -> Session:
        """Admit a session that creates or resumes a participant.

        Raises:
            JoinError: 401: the token is revoked; 503: the room or the server is full.
        """

    def validate(self, join: JoinParameters) -> None:
        """Make the checks of `admit` alone.

        Raises:
            JoinError: `admit` would raise it.
        """

    def renew(self, config: Config) -> None:
        """Use another configuration from now on."""

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of the server API."""

    def drops(self) -> Mapping[str, int]:
        """Return the number of clients' messages and requests dropped since the start, by reason."""

    def census(self) -> Census:
        """Count rooms, participants and tracks."""


def build_app(config: Config, rooms: Rooms) -> Starlette:
    """Build the application. Until `app.state.ready` is True it answers 503 to health checks and joins.

    `app.state.joins` counts joins.
    """
    routes: list[BaseRoute] = [
        Route("/", _health),
        WebSocketRoute("/rtc", _connect),
        WebSocketRoute("/rtc/v1", _connect),
        Route("/rtc/validate", _validate),
        Route("/rtc/v1/validate", _validate),
        *rooms.routes(),
    ]
    if config.development:
        routes.append(Route("/demo/token", _demo_token))
    routes += [
        Route("/demo", _demo),
        Mount("/demo", StaticFiles(directory=DEMO_DIRECTORY, html=True, check_dir=False)),
    ]
    cors = Middleware(
        CORSMiddleware,
        # The origin is repeated, as livekit-server does; "*" is not the same to a request with credentials.
        allow_origin_regex=".*",
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["*"],
        max_age=PREFLIGHT_MAX_AGE_S,
    )
    app = Starlette(routes=routes, middleware=[Middleware(SingleSlash), cors])
    app.router.redirect_slashes = False
    app.state.config = config
    app.state.rooms = rooms
    app.state.joins = Joins()
    app.state.ready = False
    return app


class SingleSlash:
    """ASGI middleware for clients that ask for `//rtc`, because they join a base URL and a path carelessly."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with only one leading slash."""
        if scope["type"] in ("http", "websocket") and scope["path"].startswith("//"):
            # In place: the server lets go of what this dictionary holds when the request has been read.
            scope["path"] = "/" + scope["path"].lstrip("/")
        await self._app(scope, receive, send)


async def _health(request: Request) -> Response:
    if not request.app.state.ready:
        return PlainTextResponse("not ready", status_code=503)
    return PlainTextResponse("OK")


async def _validate(request: Request) -> Response:
    try:
        request.app.state.rooms.validate(join_parameters(request))
    except JoinError as error:
        return PlainTextResponse(error.text, status_code=error.status)
    return PlainTextResponse("success")


async def _connect(websocket: WebSocket) -> None:
    try:
        # By way of a second object, because the socket's own would keep the query as long as it lives.
        join = join_parameters(HTTPConnection(websocket.scope))
        session: Session = websocket.app.state.rooms.admit(join)
    except JoinError as error:
        websocket.app.state.joins.refused(error.status)
        log.info("join refused", status=error.status, reason=error.text)
        await websocket.send_denial_response(PlainTextResponse(error.text, status_code=error.status))
        return
    websocket.app.state.joins.accepted(join.reconnect)
    as_json = SUBPROTOCOL_JSON in websocket.scope.get("subprotocols", [])
    try:
        await websocket.accept(subprotocol=SUBPROTOCOL_JSON if as_json else None)
    except BaseException as error:
        session.abandon()
        if not isinstance(error, SOCKET_GONE):
            raise
        return
    try:
        async with SignalConnection(websocket, as_json) as connection:
            await session.run(connection)
    except Exception:
        # A bug costs the participant who met it their socket (closed with 1011), nobody else.
        log.exception("session failed", room=join.room, identity=join.claims.identity)


def join_parameters(connection: HTTPConnection) -> JoinParameters:
    """Read the join that a request asks for.

    Raises:
        JoinError: the token does not allow it, the parameters cannot be used, or the server is not ready.
    """
    if not connection.app.state.ready:
        raise JoinError(503, "the server is starting or stopping")
    return parse_join(
        RequestFacts(
            query=query_of(connection),
            authorization=connection.headers.get("authorization", ""),
            address=connection.client.host if connection.client else "",
            single_pc=connection.scope["path"].startswith("/rtc/v1"),
        ),
        connection.app.state.config.keys,
        connection.app.state.config.limits,
    )


async def _demo(request: Request) -> Response:
    return RedirectResponse(request.url.replace(path="/demo/"))  # the query may name a room


async def _demo_token(request: Request) -> Response:
    """Sign a token for whoever asks. The route exists with `--dev` only, and refuses pages of other origins."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not _is_ours(host) or (origin and origin.partition("://")[2] != host):
        return PlainTextResponse("tokens are for the demo page of this server", status_code=403)
    try:
        query = query_of(request)
    except JoinError as error:
        return PlainTextResponse(error.text, status_code=error.status)
    room, identity = query.get("room", ""), query.get("identity", "")
    name = query.get("name", "") or identity
    if not room or not identity or max(map(len, (room, identity, name))) > MAX_NAME_LENGTH:
        return PlainTextResponse(f"room and identity are needed, at most {MAX_NAME_LENGTH} long", status_code=400)
    api_key, secret = next(iter(request.app.state.config.keys.items()))
    video = {"room": room, "roomJoin": True, "canUpdateOwnMetadata": True}
    token = create(api_key, secret, identity=identity, name=name, video=video)
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return JSONResponse({"token": token, "url": f"{scheme}://{host}"})


def _is_ours(host: str) -> bool:
    """Tell whether a `Host` header is an address, or a name of this machine that nobody else can own.

    Another name may belong to a page that points it to our address (DNS rebinding). The browser then takes our answers
    for answers of that page's origin.
    """
    found = HOST.fullmatch(host)
    if found is None:
        return False
    name = (found["ip6"] or found["name"] or "").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower()
    return True
