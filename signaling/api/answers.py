"""Holds the answers of API calls while they are written and sent, with bounds on all together and on the time.

A list of everything can have many MiB, and its caller may read it slowly or not at all.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from signaling.api.errors import ApiError
from signaling.held_bytes import HeldBytes, Holder

MAX_ANSWERS_BYTES = 256 * 1024 * 1024
"""Bytes of all answers that are written or sent."""
SMALL_ANSWER_BYTES = 64 * 1024
"""Bytes of each answer that do not count as such, so that a few large ones keep nobody's ordinary calls out."""
SENT_AT_ONCE_BYTES = 64 * 1024
"""Bytes after which the client has to read before it is sent more."""
SENDING_TIMEOUT_S = 60.0
"""How long a client may take to read an answer."""


class Answers(HeldBytes):
    """The answers that are held in memory, without the first `SMALL_ANSWER_BYTES` of each."""

    def __init__(self, dropped: Counter[str]) -> None:
        """`dropped` counts those for which there was no room, as `api_answers_held`, and those not read in time."""
        super().__init__()
        self.dropped = dropped

    @contextmanager
    def one(self) -> "Iterator[Answered]":
        """Hold an answer until the context ends."""
        answer = Answered(self)
        try:
            yield answer
        finally:
            answer.release()


class Answered:
    """One answer: its pieces so far."""

    def __init__(self, everything: Answers) -> None:
        """`everything` has the bound."""
        self._everything = everything
        self._holder = Holder(everything)
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Add what comes next.

        Raises:
            ApiError: there are too many bytes of answers.
        """
        size = self._holder.size + len(piece)
        if not self._holder.resize(size, free=SMALL_ANSWER_BYTES, most=MAX_ANSWERS_BYTES):
            self._everything.dropped["api_answers_held"] += 1
            raise ApiError("resource_exhausted", "too many large answers at a time")
        self._pieces.append(piece)

    def response(self, media_type: str) -> Response:
        """Return the whole answer as a response with this content type."""
        size = self._holder.size
        if size <= SENT_AT_ONCE_BYTES:
            return Response(b"".join(self._pieces), media_type=media_type)
        return _InParts(self._pieces, size, media_type, self._everything.dropped)

    def release(self) -> None:
        """Hold it no more."""
        self._holder.release()


class _InParts(Response):
    """A response that is sent as fast as its client reads it, and is given up if that takes too long."""

    def __init__(self, pieces: list[bytes], size: int, media_type: str, dropped: Counter[str]) -> None:
        super().__init__(headers={"content-length": str(size)}, media_type=media_type)
        self._pieces, self._dropped = pieces, dropped

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Without its end, the server closes the connection."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with asyncio.timeout(SENDING_TIMEOUT_S):
                for part in _parts(self._pieces):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._dropped["api_answers_not_read"] += 1


def _parts(pieces: list[bytes]) -> Iterator[bytes]:
    """Yield the pieces in parts of `SENT_AT_ONCE_BYTES`, the last of which may have fewer."""
    part = bytearray()
    for piece in pieces:
        part += piece
        while len(part) >= SENT_AT_ONCE_BYTES:
            yield bytes(part[:SENT_AT_ONCE_BYTES])
            del part[:SENT_AT_ONCE_BYTES]
    if part:
        yield bytes(part)
