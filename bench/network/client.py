"""What the client processes of a case share: they join a room, obey lines of standard input, and say JSON lines."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from livekit import rtc

Facts = Mapping[str, Any]


def say(**facts: Any) -> None:
    """Print facts and the time as a line of JSON, for the process that started this one."""
    print(json.dumps({"at": time.monotonic(), **facts}), flush=True)


async def commands() -> AsyncIterator[dict[str, Any]]:
    """Read lines of JSON from standard input until it ends."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def joined(url: str, token: str) -> rtc.Room:
    """Join a room and return it."""
    room = rtc.Room()
    await room.connect(url, token, rtc.RoomOptions(connect_timeout=20))
    return room


async def streams(room: rtc.Room, kind: str) -> list[Any]:
    """Return the statistics of all RTP streams of a kind, "inbound_rtp" or "outbound_rtp".

    While the room is disconnected there are none.
    """
    try:
        stats = await room.get_rtc_stats()
    except RuntimeError:
        return []
    found = [*stats.publisher_stats, *stats.subscriber_stats]
    return [getattr(each, kind) for each in found if each.WhichOneof("stats") == kind]
