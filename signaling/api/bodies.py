"""Reads the bodies of API calls, with bounds on one body, on all together, and on the time that one takes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from signaling.api.errors import TOO_LARGE, ApiError
from signaling.held_bytes import HeldBytes, Holder

MAX_BODY_BYTES = 10 * 1024 * 1024
"""Bytes of one body, as in livekit-server."""
MAX_BODIES_BYTES = 64 * 1024 * 1024
"""Bytes of all bodies that are being read or wait for their turn. Only bearers of a token with a grant of the API can
make the server keep any."""
MAX_BODIES_OF_A_CALLER_BYTES = 16 * 1024 * 1024
"""Bytes of all bodies of one caller among these, so that slow bodies of one keep nobody else's out."""
SMALL_BODY_BYTES = 16 * 1024
"""Bytes of each body that do not count as such, so that a few large ones keep nobody's ordinary calls out."""
BODY_TIMEOUT_S = 30.0
"""How long a body may take from its first byte to its last."""


class _Caller(HeldBytes):
    """The bodies of one caller."""

    reads = 0
    """How many of them there are."""


class Bodies(HeldBytes):
    """The bodies that are held in memory, without the first `SMALL_BODY_BYTES` of each."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts those for which there was no room, as `api_bodies`."""
        super().__init__()
        self._dropped = dropped
        self._callers: dict[Hashable, _Caller] = {}

    @asynccontextmanager
    async def read(self, request: Request, who: Hashable, longest: int = MAX_BODY_BYTES) -> AsyncIterator[bytes]:
        """Read the body of a request. It counts as held until the context ends.

        Args:
            request: whose body it is.
            who: its caller.
            longest: how many bytes it may have.

        Raises:
            ApiError: it is too long or too slow, the client has left, or too much is being read already.
        """
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > longest:
            raise _too_large(longest)
        body = bytearray()
        caller = self._callers.setdefault(who, _Caller())
        caller.reads += 1
        holder, holder_of_caller = Holder(self), Holder(caller)
        try:
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    async for piece in request.stream():
                        body += piece
                        self._hold(holder_of_caller, len(body), MAX_BODIES_OF_A_CALLER_BYTES)
                        self._hold(holder, len(body), MAX_BODIES_BYTES)
                        if len(body) > longest:
                            raise _too_large(longest)
            except (TimeoutError, ClientDisconnect) as error:
                raise ApiError("deadline_exceeded", "the body did not come in time") from error
            yield bytes(body)
        finally:
            holder.release()
            holder_of_caller.release()
            caller.reads -= 1
            if not caller.reads:
                del self._callers[who]

    def _hold(self, holder: Holder, size: int, most: int) -> None:
        if not holder.resize(size, free=SMALL_BODY_BYTES, most=most):
            self._dropped["api_bodies"] += 1
            raise ApiError("resource_exhausted", "too many large requests at a time")


def _too_large(longest: int) -> ApiError:
    return ApiError("resource_exhausted", f"the body has more than {longest} bytes", status=TOO_LARGE)
