"""The floor: for each receiver a copy, `srtp_protect` and `sendmmsg`, and nothing else that a forwarding unit does.

Publishers send in the clear, and there is no signalling. The option `segments=0` sends without UDP_SEGMENT. With
UDP_SEGMENT, packets of a recording are sent as large as the server pads them, so that they share messages.
"""

import asyncio
import os
import socket
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from pylibsrtp import Policy, Session, ffi

from bench.plans import AUDIO_PAYLOAD_TYPE, VIDEO_PAYLOAD_TYPE, Connected, Plan, SendStream
from bench.servers import reflect
from bench.targets.base import LAYER_OF, Child

KEY_BYTES = 28


@dataclass(slots=True)
class Member:
    """A participant: its streams, its receiver, and its stream of each track of others."""

    sessions: list[Session]
    streams: list[list[int]] = field(default_factory=list)
    """The participant's streams by track, then by layer, lowest first."""
    receiver: int = -1
    gets: dict[tuple[str, int], int] = field(default_factory=dict)
    """(publisher, number of the track) -> stream."""


class Floor:
    """A child process that protects and forwards plaintext RTP."""

    name = "floor"
    profile = "SRTP_AEAD_AES_128_GCM"
    protects = True

    def __init__(self, options: dict[str, str]) -> None:
        """Read the options, which the module lists."""
        self._segments = options.get("segments", "1") not in ("0", "no", "false")
        self._rooms: dict[str, dict[str, Connected]] = defaultdict(dict)
        self._streams = 0
        self._lock = asyncio.Lock()
        self._child = Child(self.name, reflect.main, (self.protects, self._segments))

    async def start(self, cores: tuple[int, ...]) -> None:
        """Start the child process on these cores."""
        await self._child.start(cores)

    def pid(self) -> int:
        """Return the id of the child process."""
        return self._child.pid

    def keys(self) -> tuple[bytes, bytes, bytes]:
        """Return the SRTP keys of a new participant: to send, of the child to send to it, and to receive."""
        key = os.urandom(KEY_BYTES)
        return b"", key, key

    async def join(self, plan: Plan) -> Connected:
        """Open a socket and add it to the child's tables."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind(("127.0.0.1", 0))
        opened.connect(("127.0.0.1", self._child.port))
        opened.setblocking(False)
        sending, forwarding, receiving = self.keys()
        member = Member([])
        outgoing = _session(member, sending, Policy.SSRC_ANY_OUTBOUND)
        incoming = _session(member, receiving, Policy.SSRC_ANY_INBOUND)
        participant = Connected(plan, opened, incoming, outgoing, owner=member)
        async with self._lock:
            for track in plan.publish:
                member.streams.append([])
                for layer in track.layers:
                    member.streams[-1].append(self._streams)
                    payload_type = AUDIO_PAYLOAD_TYPE if track.kind == "audio" else VIDEO_PAYLOAD_TYPE
                    ssrc = reflect.FIRST_SSRC + self._streams
                    # the best that can be done with these packets, and what the server does too
                    sent = replace(layer, padded=self._segments)
                    send = SendStream(ssrc, payload_type, track.kind, sent, track.frames_per_second)
                    participant.sends.append(send)
                    self._streams += 1
            if plan.subscribe:
                member.receiver = self._child.ask("add_receiver", opened.getsockname()[1], forwarding)
            self._connect(participant)
        return participant

    def _connect(self, participant: Connected) -> None:
        """Subscribe a participant to the highest layer of each track in its room, and the others to its own."""
        room = self._rooms[participant.plan.room]
        for other in room.values():
            for publisher, viewer in ((other, participant), (participant, other)):
                if viewer.plan.subscribe:
                    for number in range(len(_member(publisher).streams)):
                        self._route(publisher, viewer, number, -1)
        room[participant.plan.identity] = participant

    def _route(self, publisher: Connected, viewer: Connected, number: int, layer: int) -> None:
        streams, member = _member(publisher).streams[number], _member(viewer)
        wanted = streams[layer]
        track = (publisher.plan.identity, number)
        if member.gets.get(track) == wanted:
            return
        if track in member.gets:
            self._child.ask("unsubscribe", member.gets[track], member.receiver)
        member.gets[track] = wanted
        self._child.ask("subscribe", wanted, member.receiver)

    async def settle(self) -> None:
        """Do nothing: subscriptions exist when `join` returns."""

    async def choose_layer(self, participant: Connected, publisher: str, quality: str) -> None:
        """Send `participant` the LOW, MEDIUM or HIGH layer of another's video."""
        other = self._rooms[participant.plan.room].get(publisher)
        async with self._lock:
            for number, streams in enumerate(_member(other).streams if other is not None else ()):
                if other is not None and other.plan.publish[number].kind == "video":
                    self._route(other, participant, number, min(LAYER_OF[quality], len(streams) - 1))

    async def mute(self, participant: Connected, muted: bool) -> None:
        """Do nothing: there is no signalling."""

    async def leave(self, participant: Connected) -> None:
        """End a participant's subscriptions, and those to its tracks."""
        room, member = self._rooms[participant.plan.room], _member(participant)
        async with self._lock:
            room.pop(participant.plan.identity, None)
            for stream in member.gets.values():
                self._child.ask("unsubscribe", stream, member.receiver)
            for other in map(_member, room.values()):
                for track in [each for each in other.gets if each[0] == participant.plan.identity]:
                    self._child.ask("unsubscribe", other.gets.pop(track), other.receiver)
        participant.socket.close()

    def drops(self) -> dict[str, int]:
        """Return how many packets the child could not send."""
        return {reason: count for reason, count in self._child.ask("drops").items() if count}

    def versions(self) -> dict[str, str]:
        """Return how it sends, instead of a version."""
        return {self.name: "UDP_SEGMENT" if self._segments else "one message per packet"}

    async def stop(self) -> None:
        """Stop the child and close the sockets of all participants."""
        self._child.stop()
        for room in self._rooms.values():
            for participant in room.values():
                participant.socket.close()


def _member(participant: Connected) -> Member:
    assert isinstance(participant.owner, Member)
    return participant.owner


def _session(member: Member, key: bytes, kind: Any) -> int:
    """Return the address of a libsrtp session that lives as long as the member; 0 if there is no key."""
    if not key:
        return 0
    policy = Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
    member.sessions.append(Session(policy))
    return int(ffi.cast("uintptr_t", member.sessions[-1]._srtp[0]))


TARGET = Floor
