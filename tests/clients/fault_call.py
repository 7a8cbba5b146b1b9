"""A call of three kinds of clients over a way that breaks, and all that must be the same when they are back."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from google.protobuf.json_format import MessageToDict
from livekit.api import LiveKitAPI
from livekit.protocol import models
from livekit.protocol import room as protocol
from livekit.protocol.webhook import WebhookEvent

from tests.clients.facts import hears
from tests.clients.faulty_path import FaultyPath
from tests.clients.peers import BrowserPeer, Peer, SdkPeer, eventually

Preferences = dict[tuple[str, str, str], Any]
TALK_INTERVAL_S = 0.1
SOURCES = [models.MICROPHONE, models.CAMERA]


@dataclass
class FaultCall:
    """The call. `path` is the clients' way, `api` goes to the server without it."""

    path: FaultyPath
    api: LiveKitAPI
    room: str
    peers: list[Any] = field(default_factory=list)
    """Those that are awake. What is asked of the server is told of them only."""
    returns: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How often each client has told its application that it is back."""

    async def join(self, peer: Peer, **grants: Any) -> None:
        """Let a client in by the way that breaks, and have it publish sound."""
        if isinstance(peer, SdkPeer):
            identity = peer.identity
            peer.room.on("reconnected", lambda: self._note_return(identity))
        await peer.join(self.path.server, self.room, canUpdateOwnMetadata=True, **grants)
        self.peers.append(peer)
        await peer.publish_audio()

    def part_from(self, sleepers: "Sleepers") -> None:
        """Expect nothing of clients that are asleep, or that have left."""
        for peer in sleepers.peers:
            self.peers.remove(peer)

    def _note_return(self, identity: str) -> None:
        self.returns[identity] += 1

    async def participants(self) -> dict[str, models.ParticipantInfo]:
        """What the server API says of each, by identity."""
        listed = await self.api.room.list_participants(protocol.ListParticipantsRequest(room=self.room))
        identities = self._identities()
        return {info.identity: info for info in listed.participants if info.identity in identities}

    def _identities(self) -> set[str]:
        return {peer.identity for peer in self.peers}

    async def sids(self) -> dict[str, str]:
        return {identity: info.sid for identity, info in (await self.participants()).items()}

    async def lasting(self) -> dict[str, Any]:
        """What of each participant must outlast any fault."""
        return {identity: _lasting(info) for identity, info in (await self.participants()).items()}

    async def preferences(self) -> Preferences:
        """(subscriber, publisher, kind) -> the layers that the subscriber prefers, of all subscriptions."""
        token = self.path.server.token(self.room, "watcher", roomAdmin=True)
        url = f"{self.path.server.http_url}/statistics/{self.room}"
        async with aiohttp.ClientSession() as session, session.get(url, params={"access_token": token}) as answer:
            members = (await answer.json())["participants"]
        identities = self._identities()
        return {
            (member["identity"], each["publisher"], each["kind"]): each.get("preferred")
            for member in members
            for each in member["subscriptions"]
            if {member["identity"], each["publisher"]} <= identities
        }

    async def preferences_become(self, right: Callable[[Preferences], bool]) -> None:
        """Wait until the preferences satisfy `right`."""

        async def are_right() -> bool:
            return right(await self.preferences())

        await eventually(are_right, "the preferences", detail=self.preferences)

    def native(self, identity: str) -> SdkPeer:
        """The native client of this name."""
        return next(peer for peer in self.peers if peer.identity == identity and isinstance(peer, SdkPeer))

    async def everybody_hears_everybody(self) -> None:
        pairs = itertools.permutations(self.peers, 2)
        await asyncio.gather(*(hears(listener, speaker.identity) for listener, speaker in pairs))

    async def returned(self, peer: BrowserPeer | SdkPeer) -> int:
        """How often a client has told its application that it is back."""
        if isinstance(peer, BrowserPeer):
            return sum(kind == "Reconnected" for kind, *_ in (await peer.state())["events"])
        return self.returns[peer.identity]

    async def are_back(self, before: dict[str, int]) -> None:
        """Wait until each client has told once more than `before` that it is back."""

        async def more() -> bool:
            return all([await self.returned(peer) > before[peer.identity] for peer in self.peers])

        await eventually(more, "all are back", within_s=60, detail=self.sids)

    async def count_returns(self) -> dict[str, int]:
        return {peer.identity: await self.returned(peer) for peer in self.peers}

    async def is_as_before(self, before: dict[str, Any]) -> None:
        """Wait until the server knows of everybody what it knew."""

        async def same() -> bool:
            return await self.lasting() == before

        async def differences() -> Any:
            now = await self.lasting()
            return {who: (before.get(who), now.get(who)) for who in before | now if before.get(who) != now.get(who)}

        await eventually(same, "everything is as before", within_s=60, detail=differences)


@dataclass
class Sleepers:
    """Clients whose processes are stopped."""

    peers: list[Any]
    before: dict[str, Any]
    """What lasts of everybody in the call, as it was when they fell asleep."""
    sids: dict[str, str]
    since: float
    """When that was, on the event loop's clock."""
    wake: Callable[[], None] = field(default=lambda: None)
    """Lets their processes go on."""


def _lasting(info: models.ParticipantInfo) -> dict[str, Any]:
    tracks = sorted(
        (track.source, track.type, track.muted, track.name, track.width, track.height, track.mime_type)
        for track in info.tracks
    )
    return {
        "state": info.state,
        "name": info.name,
        "metadata": info.metadata,
        "attributes": dict(info.attributes),
        "permission": MessageToDict(info.permission),
        "tracks": tracks,
    }


@dataclass
class Talk:
    """Numbered messages of one client, and where they have to arrive."""

    peer: Peer
    subject: str
    """What sets its messages apart from those of other talks of the client."""
    said: list[tuple[str, str]] = field(default_factory=list)
    _ends: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def _go_on(self) -> None:
        for number in itertools.count():
            if self._ends.is_set():
                return
            text = f"{self.subject} {number}"
            await self.peer.say(text)
            self.said.append((self.peer.identity, text))
            await asyncio.sleep(TALK_INTERVAL_S)

    async def end(self) -> None:
        """Stop after the message that is being sent. Raises what the client raised instead of sending."""
        assert self._task is not None
        self._ends.set()
        await self._task

    async def arrives_once_and_in_order(self, listener: Peer) -> None:
        async def heard() -> list[tuple[str, str]]:
            told = await listener.messages()
            return [each for each in told if each[0] == self.peer.identity and each[1].startswith(f"{self.subject} ")]

        async def has_the_last() -> bool:
            return self.said[-1] in await heard()

        who = f"{listener.identity} has the last of {len(self.said)} messages of {self.peer.identity}"
        await eventually(has_the_last, who, within_s=30)
        assert await heard() == self.said


def visits(events: Iterable[WebhookEvent]) -> dict[str, list[tuple[str, str]]]:
    """What webhooks told of each identity: (joined or left, sid), in order."""
    told: dict[str, list[tuple[str, str]]] = {}
    for event in events:
        if event.event in ("participant_joined", "participant_left"):
            what = event.event.removeprefix("participant_")
            told.setdefault(event.participant.identity, []).append((what, event.participant.sid))
    return told


def alternates(told: list[tuple[str, str]]) -> bool:
    """Whether each stay was told as joined and then as left, one after the other; the last may go on."""
    pairs = itertools.zip_longest(told[::2], told[1::2])
    return (
        all(joined[0] == "joined" and (left is None or left == ("left", joined[1])) for joined, left in pairs)
        and len({sid for _, sid in told}) == (len(told) + 1) // 2
    )
