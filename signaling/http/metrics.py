"""The route `/metrics`, and who may read it.

Who calls it: `listener.py` serves it on a port of its own; with `--dev` it is on the main port too.
"""

import base64
import binascii
import hmac

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from signaling.config.configuration import PrometheusOptions
from signaling.metrics.collector import Scrapes

PATH = "/metrics"


def metrics_route(scrapes: Scrapes, options: PrometheusOptions) -> Route:
    """Return the route, which asks for `options`' user name and password if there are any."""

    async def answer(request: Request) -> Response:
        if not may_read(request.headers.get("authorization", ""), options):
            return PlainTextResponse("unauthorized", 401, {"WWW-Authenticate": 'Basic realm="metrics"'})
        body, content_type = scrapes.answer(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return Route(PATH, answer)


def may_read(authorization: str, options: PrometheusOptions) -> bool:
    """Tell whether a request with this `Authorization` header (RFC 7617) may read metrics."""
    if not options.is_protected:
        return True
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    # The comparison takes as long for a password that begins right as for any other.
    return hmac.compare_digest(given, f"{options.username}:{options.password.get_secret_value()}".encode())
