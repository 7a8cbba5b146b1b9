"""Calls of the server API about a measured room, as the backend of an application makes them.

They are due at an even rate, however many earlier ones still wait for their answer (an open loop), so a server that
stalls is charged for all calls that it kept waiting. Of twenty calls most ask about participants, some list everybody
or all rooms, some send data to one viewer, and one changes a viewer, which everybody in the room is told.
"""

import asyncio
import itertools
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import aiohttp
from google.protobuf.message import Message
from livekit.protocol import room

from bench.scenarios import Scenario
from bench.targets.base import Target

ANSWER_TIMEOUT_S = 30.0
MAX_CONNECTIONS = 64
"""Connections, and so calls at a time. Further ones wait here for their turn, which counts as their time."""
OK = 200

Body = tuple[str, Message]
"""Name of a call, and its request."""


@runtime_checkable
class HasApi(Protocol):
    """A target with LiveKit's server API."""

    def api(self, room: str) -> tuple[str, str]:
        """Return the URL before the names of its services, and a token that may manage `room` and list all rooms."""


@dataclass(slots=True)
class Called:
    """One call."""

    due_ns: int
    """When it was to be made, in ns of the monotonic clock."""
    took_ms: float = 0.0
    """The time from then to the end of its answer; 0: it was not answered as it should be."""


class ApiCalls:
    """An asynchronous context manager: an application calls while it is open, and is answered when it has closed."""

    def __init__(self, target: Target, scenario: Scenario) -> None:
        """`scenario` says how many calls are made per second, and who is in the room."""
        self._target, self._scenario = target, scenario
        self._bodies = mix(scenario)
        self._group = asyncio.TaskGroup()
        self._closing = asyncio.Event()
        self._client: aiohttp.ClientSession | None = None
        self._url = ""
        self.calls: list[Called] = []
        self.failures: list[str] = []
        """Why calls were not answered as they should be, one text each."""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        if self._scenario.calls_per_second and isinstance(self._target, HasApi):
            self._url, token = self._target.api(self._scenario.viewers()[0].room)
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/protobuf"},
                timeout=aiohttp.ClientTimeout(ANSWER_TIMEOUT_S),
            )
            self._group.create_task(self._call_all(self._client))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            if self._client is not None:
                await self._client.close()

    async def _call_all(self, client: aiohttp.ClientSession) -> None:
        begin_ns, interval_ns = time.monotonic_ns(), 1e9 / self._scenario.calls_per_second
        for number in itertools.count():
            due_ns = begin_ns + int(number * interval_ns)
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            if self._closing.is_set():
                return
            self._group.create_task(self._call(client, due_ns, *self._bodies[number % len(self._bodies)]))

    async def _call(self, client: aiohttp.ClientSession, due_ns: int, name: str, request: Message) -> None:
        called = Called(due_ns)
        self.calls.append(called)
        try:
            async with client.post(f"{self._url}RoomService/{name}", data=request.SerializeToString()) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.failures.append(f"{name}: {type(error).__name__} {error}")
            return
        if answer.status == OK:
            called.took_ms = (time.monotonic_ns() - due_ns) / 1e6
        else:
            self.failures.append(f"{name}: {answer.status} {body.decode(errors='replace')[:200]}")

    def within(self, begin_ns: int, end_ns: int) -> list[Called]:
        """Return the calls that were due in a time of the monotonic clock."""
        return [call for call in self.calls if begin_ns <= call.due_ns < end_ns]

    def notes(self) -> list[str]:
        """Return one sentence for each thing that the report has to say; none for a scenario without calls."""
        if not self._scenario.calls_per_second:
            return []
        if self._client is None:
            return [f"{self._target.name} has no server API"]
        if self.failures:
            return [f"{len(self.failures)} of {len(self.calls)} calls failed: {self.failures[0]}"]
        return []


def mix(scenario: Scenario) -> list[Body]:
    """Return the calls that are made over and over, about the viewers of a scenario."""
    viewers = scenario.viewers()
    if not viewers:
        return []
    name = viewers[0].room
    found: list[Body] = []
    for number in range(20):
        identity = viewers[number % len(viewers)].identity
        if number == 0:
            change = room.UpdateParticipantRequest(room=name, identity=identity, attributes={"hand": "up"})
            found.append(("UpdateParticipant", change))
        elif number % 10 == 5:
            found.append(("ListParticipants", room.ListParticipantsRequest(room=name)))
        elif number % 10 == 8:
            found.append(("ListRooms", room.ListRoomsRequest()))
        elif number % 3 == 0:
            found.append(("SendData", room.SendDataRequest(room=name, data=b"bell", destination_identities=[identity])))
        else:
            found.append(("GetParticipant", room.RoomParticipantIdentity(room=name, identity=identity)))
    return found
