"""A token server: whoever may enter asks it for a token, and the API secret stays here.

    .venv/bin/pip install livekit-api starlette uvicorn
    export LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret
    .venv/bin/python examples/token_server.py 8000 alice:wonderland bob:builder

    curl -u alice:wonderland "http://127.0.0.1:8000/token?room=demo"

It answers `{"url": ..., "token": ...}`, with which a client of LiveKit's SDKs connects. Passwords on a command line are
for trying only: put your application's own login in the place of `login`.

After `npm install --prefix . --no-save livekit-client`, http://127.0.0.1:8000/ is examples/livekit_page.html, which
uses it. If the SDK is in another place, LIVEKIT_CLIENT names the folder of its package.
"""

import base64
import binascii
import datetime
import hmac
import os
import sys
from pathlib import Path

import uvicorn
from livekit import api
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

VALID_FOR = datetime.timedelta(minutes=10)
"""How long a token can be used to join. Whoever is in a room is sent newer ones by the server."""
MAX_NAME = 64
PAGE = Path(__file__).with_name("livekit_page.html")


def login(request: Request) -> str | None:
    """The name of who asks (HTTP basic authentication); None: nobody we know."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    expected = request.app.state.passwords.get(name, "")
    known = bool(expected) and hmac.compare_digest(password.encode(), expected.encode())
    return name if scheme.lower() == "basic" and known else None


async def token(request: Request) -> JSONResponse:
    """Give a token for the room in the query to who has logged in."""
    name = login(request)
    if name is None:
        return JSONResponse({"error": "name or password is wrong"}, 401, {"WWW-Authenticate": 'Basic realm="rooms"'})
    room = request.query_params.get("room", "")
    if not 0 < len(room) <= MAX_NAME:
        return JSONResponse({"error": f"a room has 1 to {MAX_NAME} characters"}, 400)
    # The identity comes from the login and never from the query: it is what others and the server know somebody by.
    made = (
        api.AccessToken()  # reads LIVEKIT_API_KEY and LIVEKIT_API_SECRET
        .with_identity(name)
        .with_name(name.title())
        .with_ttl(VALID_FOR)
        .with_grants(api.VideoGrants(room_join=True, room=room, can_update_own_metadata=True))
    )
    return JSONResponse(
        {"url": os.environ["LIVEKIT_URL"], "token": made.to_jwt()}, headers={"Cache-Control": "no-store"}
    )


async def page(_: Request) -> FileResponse:
    """Give the page, which loads the SDK from `/livekit-client`."""
    return FileResponse(PAGE)


def build(passwords: dict[str, str], sdk: Path) -> Starlette:
    """The application. passwords: of each user; sdk: the package livekit-client, if it is there."""
    routes: list[BaseRoute] = [Route("/", page), Route("/token", token)]
    if sdk.is_dir():
        routes.append(Mount("/livekit-client", StaticFiles(directory=sdk / "dist")))
    app = Starlette(routes=routes)
    app.state.passwords = passwords
    return app


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    users = dict(word.partition(":")[::2] for word in sys.argv[2:])
    client = Path(os.environ.get("LIVEKIT_CLIENT", "node_modules/livekit-client"))
    uvicorn.run(build(users, client), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
