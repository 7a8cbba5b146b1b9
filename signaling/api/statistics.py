"""The statistics of one room as JSON, for integrators: each participant, what it publishes, and what it is sent.

Who calls it: Starlette, for `GET /statistics/<room>`. A token with `roomAdmin` for the room reads all of it; that of a
participant reads what is about this participant. A large room comes in pages, and others have their turn while one is
written. There is nothing in it that could be used to get in, and no address of anybody.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

from livekit.protocol.models import ConnectionQuality, ParticipantInfo
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from sfu.engine import EngineError
from sfu.parameters import Kind, SubscriptionId, TrackId, TransportId
from signaling.api.answers import Answers
from signaling.api.callers import bearer, query, wait_for_turn
from signaling.api.errors import ApiError, unauthenticated
from signaling.api.registry import Registry, find_participant, find_room
from signaling.http.shares import Share
from signaling.http.tokens import Claims, source_name
from signaling.participants.participant import Participant
from signaling.rooms.quality import opinion_score
from signaling.rooms.room import Room
from signaling.rooms.tracks import Track, codec_name

PATH = "/statistics/{room:path}"
MAX_ENTRIES = 500
"""Connections, tracks and subscriptions in one answer, from which on no further participant is added."""

Entry = dict[str, Any]
Work = tuple[list[Entry], Callable[[], Entry]]
"""A list, and what makes the next entry of it."""


class Statistics:
    """Answers requests for statistics."""

    def __init__(self, rooms: Registry) -> None:
        """Tell of `rooms`."""
        self._rooms = rooms
        self._node = rooms.node
        self._answers = Answers(rooms.node.dropped)

    def routes(self) -> list[BaseRoute]:
        """Return the route."""
        return [Route(PATH, self, methods=["GET"])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. The answer is held, and sent as fast as its caller reads it."""
        response: Response
        with self._answers.one() as held:
            try:
                held.add(await self._answer(Request(scope, receive)))
                response = held.response("application/json")
            except ApiError as error:
                response = JSONResponse(error.body, error.status)
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> bytes:
        name: str = request.path_params["room"]
        claims = bearer(request, self._node.config.keys)
        is_admin = claims.video.room_admin
        if claims.video.room != name or not (is_admin or self._is_of_a_participant(claims)):
            raise unauthenticated()
        room = find_room(self._rooms, name)
        if is_admin:
            after = query(request).get("after", "")
            members = [each for each in room.participants.values() if isinstance(each, Participant)]
            members = sorted((each for each in members if each.sid > after), key=lambda each: each.sid)
        else:
            members = [find_participant(self._rooms, name, claims.identity)]
        share = self._node.callers.share(claims.who)
        share.note()
        told = await self._describe(room, members, share, names_hidden=is_admin)
        with share.charged():
            return json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def _is_of_a_participant(self, claims: Claims) -> bool:
        """Tell whether a token is that of a participant, which was not removed since."""
        who = claims.video.room, claims.identity
        return claims.video.room_join and not self._node.revocations.covers(*who, claims.not_before)

    async def _describe(self, room: Room, members: list[Participant], share: Share, *, names_hidden: bool) -> Entry:
        described: list[Entry] = []
        count = 0
        for member in members:
            if member.removed:
                continue  # it left while others had their turn
            if count >= MAX_ENTRIES:
                return _page(room, described) | {"next": described[-1]["sid"]}
            entry = self._participant(room, member)
            for entries, make in self._works(member, entry, names_hidden):
                count += 1
                await wait_for_turn(share, self._node.dropped)
                with share.charged(), suppress(EngineError, KeyError):  # it may have ended meanwhile
                    entries.append(make())
            described.append(entry)
        return _page(room, described)

    def _participant(self, room: Room, member: Participant) -> Entry:
        quality = room.qualities.of(member.sid)
        return {
            "sid": member.sid,
            "identity": member.identity,
            "state": ParticipantInfo.State.Name(member.state),
            "quality": ConnectionQuality.Name(quality.word) if quality is not None else None,
            "score": round(opinion_score(quality.score), 2) if quality is not None else None,
            "connections": [],
            "tracks": [],
            "subscriptions": [],
        }

    def _works(self, member: Participant, entry: Entry, names_hidden: bool) -> Iterator[Work]:
        """Return what is to be added to an entry, one after the other, as it is now."""
        tracks = [(track, number) for track in member.publishing.tracks.values() for number in track.engine_tracks]
        known = member.room.tracks
        active = [(known[sid], each.id) for sid, each in member.subscriptions.active.items() if each.id is not None]
        return chain(
            ((entry["connections"], partial(self._connection, each)) for each in member.renegotiation.transports),
            ((entry["tracks"], partial(self._track, *each)) for each in tracks),
            ((entry["subscriptions"], partial(self._subscription, *each, names_hidden)) for each in active),
        )

    def _connection(self, transport: TransportId) -> Entry:
        numbers = self._node.engine.transport_statistics(transport)
        return {
            "estimate_bps": numbers.estimate_bps,
            "allocated_bps": numbers.allocated_bps,
            "preferred_bps": numbers.preferred_bps,
            "limited": numbers.limited,
            "rtt_ms": round(numbers.rtt_ms, 3),
            "packets_received": numbers.packets_received,
            "bytes_received": numbers.bytes_received,
            "reported_lost": numbers.reported_lost,
            "protocol": numbers.protocol,
        }

    def _track(self, track: Track, number: TrackId) -> Entry:
        numbers = self._node.engine.track_statistics(number)
        return {
            "sid": track.sid,
            "kind": track.kind.value,
            "source": source_name(track.info.source),
            "muted": track.info.muted,
            "codec": codec_name(track.engine_tracks[number].shown),
            "packets": numbers.packets,
            "bytes": numbers.bytes,
            "lost": numbers.lost,
            "jitter_ms": round(numbers.jitter_ms, 3),
            "bitrate_bps": sum(layer.bitrate_bps for layer in numbers.layers),
            "layers": [
                {
                    "packets": layer.packets,
                    "bytes": layer.bytes,
                    "bitrate_bps": layer.bitrate_bps,
                    "live": layer.live,
                }
                for layer in numbers.layers
            ],
        }

    def _subscription(self, track: Track, number: SubscriptionId, names_hidden: bool) -> Entry:
        numbers = self._node.engine.subscription_statistics(number)
        layers = {
            "current": _layer((numbers.layer, numbers.temporal)),
            "preferred": _layer(numbers.preferred),
            "allowed": _layer(numbers.allowed),
            "reason": numbers.reason,
            "waiting_s": round(numbers.waiting_s, 1),
        }
        return {
            "track_sid": track.sid,
            "publisher": "" if track.publisher.hidden and not names_hidden else track.publisher.identity,
            "kind": track.kind.value,
            "packets": numbers.packets,
            "bytes": numbers.bytes,
            "bitrate_bps": numbers.bitrate_bps,
            "retransmitted": numbers.retransmitted,
            "lost": numbers.lost,
            "lost_fraction": round(numbers.lost_fraction, 4),
            "jitter_ms": round(numbers.jitter_ms, 3),
            "rtt_ms": round(numbers.rtt_ms, 3),
        } | (layers if track.kind is Kind.VIDEO else {})


def _page(room: Room, participants: list[Entry]) -> Entry:
    return {"room": {"name": room.name, "sid": room.info.sid}, "participants": participants}


def _layer(layers: tuple[int, int]) -> Entry | None:
    """Describe a spatial and a temporal layer; None: nothing is sent."""
    spatial, temporal = layers
    return None if spatial < 0 else {"spatial": spatial, "temporal": temporal}
