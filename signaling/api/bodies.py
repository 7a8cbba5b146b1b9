"""Reads the bodies of API calls, with bounds on one body, on all together, and on the time that one takes."""

import asyncio
from collections import Counter

from starlette.requests import ClientDisconnect, Request

from signaling.api.errors import TOO_LARGE, ApiError

MAX_BODY_BYTES = 10 * 1024 * 1024
"""Bytes of one body, as in livekit-server."""
MAX_BODIES_BYTES = 64 * 1024 * 1024
"""Bytes of all bodies that are being read. Only bearers of a valid token can make the server keep any."""
BODY_TIMEOUT_S = 30.0
"""How long a body may take from its first byte to its last."""


class Bodies:
    """The bodies that are being read."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts those for which there was no room, as `api_bodies`."""
        self._dropped = dropped
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """Return the body of `request`.

        Raises:
            ApiError: it is too long or too slow, the client has left, or too much is being read already.
        """
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            raise _too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for piece in request.stream():
                    body += piece
                    self._hold(len(piece))
                    if len(body) > MAX_BODY_BYTES:
                        raise _too_large()
        except (TimeoutError, ClientDisconnect) as error:
            raise ApiError("deadline_exceeded", "the body did not come in time") from error
        finally:
            self._held -= len(body)
        return bytes(body)

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > MAX_BODIES_BYTES:
            self._dropped["api_bodies"] += 1
            raise ApiError("resource_exhausted", "too many large requests at a time")


def _too_large() -> ApiError:
    return ApiError("resource_exhausted", f"the body has more than {MAX_BODY_BYTES} bytes", status=TOO_LARGE)
