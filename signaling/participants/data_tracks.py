"""The data tracks that one participant publishes, and those that it is subscribed to.

Frames come as packets on the channel `_data_track`, whose header names the track by a handle. They are sent on unread,
with the handle that the subscribers were told.
"""

import asyncio
from collections.abc import Mapping
from functools import partial

from livekit.protocol.models import DataTrackInfo
from livekit.protocol.rtc import (
    DataTrackSubscriberHandles,
    PublishDataTrackRequest,
    RequestResponse,
    SignalResponse,
    SubscriptionPermissionUpdate,
    UnpublishDataTrackResponse,
    UpdateDataSubscription,
)

from sfu.events import DataReceived
from sfu.parameters import Channel
from signaling import identifiers
from signaling.allowance import Allowance
from signaling.errors import RequestRefused
from signaling.http.join import MAX_NAME_LENGTH
from signaling.limits import (
    MAX_DATA_TRACK_BYTES,
    MAX_DATA_TRACKS,
    MAX_SID_CHARACTERS,
    MAX_SUBSCRIPTION_CHOICES,
    MAX_UPDATE_BYTES_PER_S,
    UPDATE_BURST_BYTES,
)
from signaling.participants.owner import Owner
from signaling.rooms.data_tracks import HANDLES
from signaling.rooms.tracks import DataTrack

HEADER_BYTES = 12
"""Flags, handle, sequence number, frame number and timestamp, before extensions and the payload."""
HANDLE = slice(2, 4)
"""Where the handle stands in a packet."""
TOLD_BYTES = 16 * 1024
"""What telling a client its handles counts as at least, of `MAX_UPDATE_BYTES_PER_S`: 16 times a second, after a burst.
A publisher that begins and ends tracks in a loop, or grants and refuses them, must not fill the queues of its
subscribers."""


class DataTracks:
    """The data tracks of a participant."""

    def __init__(self, participant: Owner, auto_subscribe: bool) -> None:
        """`auto_subscribe`: tracks without an explicit choice are wanted."""
        self._participant = participant
        self._auto_subscribe = auto_subscribe
        self._published: dict[int, DataTrack] = {}
        self._active: dict[str, DataTrack] = {}
        """The tracks that it is sent, by sid."""
        self._choices: dict[str, bool] = {}
        self._told: dict[str, bool] = {}
        """Sid of a wanted track that was once refused -> whether it is allowed now, as the client was told last."""
        self._changed: dict[str, DataTrack] = {}
        """Tracks of which the client has to know that it may have them, or may not; unless that changes back before."""
        self._allowance = Allowance(MAX_UPDATE_BYTES_PER_S, UPDATE_BURST_BYTES, participant.node.clock())
        self._has_handles = False
        """The client was told handles once. What it was told since may not have come."""
        self._late = False
        """The client has to be told its handles as soon as that is allowed again."""
        self._telling: asyncio.Handle | None = None
        """The pending call that tells the client the handles of its subscriptions."""

    @property
    def published(self) -> Mapping[int, DataTrack]:
        """The tracks that it publishes, by the handle in its packets."""
        return self._published

    # Publishing.

    def publish(self, request: PublishDataTrackRequest) -> DataTrackInfo:
        """Begin to publish a track, and tell the room.

        Raises:
            RequestRefused: not allowed, too many, or what the request says cannot be used.
        """
        self._check(request)
        info = DataTrackInfo(
            pub_handle=request.pub_handle,
            sid=identifiers.data_track_sid(),
            name=request.name,
            encryption=request.encryption,
            frame_encoding=request.frame_encoding if request.HasField("frame_encoding") else None,
            schema=request.schema if request.HasField("schema") else None,
        )
        self._published[request.pub_handle] = self._participant.room.data_tracks.add(self._participant, info)
        self._participant.changed()  # others are subscribed as soon as they are told
        return info

    def unpublish(self, handle: int) -> DataTrackInfo:
        """End a track.

        Raises:
            RequestRefused: NOT_FOUND.
        """
        track = self._published.pop(handle, None)
        if track is None:
            raise RequestRefused(RequestResponse.NOT_FOUND, "there is no data track with this handle")
        self._participant.room.data_tracks.remove(track)
        self._participant.changed()
        return track.info

    def revoke_forbidden(self) -> None:
        """End its tracks if the permission no longer allows them, and tell the client."""
        if self._participant.permission.can_publish_data:
            return
        for handle in tuple(self._published):
            response = UnpublishDataTrackResponse(info=self.unpublish(handle))
            self._participant.send(SignalResponse(unpublish_data_track_response=response))

    def forward(self, received: DataReceived) -> str:
        """Send a packet to the subscribers of its track; return why it was dropped, and an empty text if it was not."""
        payload = received.payload
        if len(payload) < HEADER_BYTES:
            return "data malformed"
        track = self._published.get(int.from_bytes(payload[HANDLE]))
        if track is None:
            return "data track unknown"
        transports = [each.data_transport for each in track.subscribers.values() if each.expires_at is None]
        if transports:
            packet = payload[: HANDLE.start] + track.handle.to_bytes(2) + payload[HANDLE.stop :]
            self._participant.node.engine.send_data(transports, Channel.DATA_TRACK, packet, received.transport)
        return ""

    def _check(self, request: PublishDataTrackRequest) -> None:
        config = self._participant.node.config
        if not (config.data_tracks and self._participant.permission.can_publish_data):
            raise RequestRefused(RequestResponse.NOT_ALLOWED, "does not have permission to publish data")
        if not 0 < request.pub_handle < HANDLES:
            raise RequestRefused(RequestResponse.INVALID_HANDLE, "handle should be > 0 AND < 65536")
        if not 0 < len(request.name.encode()) <= MAX_NAME_LENGTH:
            text = "name should not be empty and should not exceed 256 characters"
            raise RequestRefused(RequestResponse.INVALID_NAME, text)
        limits = config.limits
        known = limits.hold_encoding(request.frame_encoding) and limits.hold_encoding(request.schema.encoding)
        if not known or request.ByteSize() > MAX_DATA_TRACK_BYTES:
            text = "encoding identifier is empty or exceeds the maximum length"
            raise RequestRefused(RequestResponse.INVALID_REQUEST, text)
        if request.pub_handle in self._published:
            raise RequestRefused(RequestResponse.DUPLICATE_HANDLE, "a data track with same handle already exists")
        if request.name in {track.info.name for track in self._published.values()}:
            raise RequestRefused(RequestResponse.DUPLICATE_NAME, "a data track with same name already exists")
        if len(self._published) >= MAX_DATA_TRACKS:
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "too many data tracks")

    # Subscribing.

    def update(self, request: UpdateDataSubscription) -> None:
        """Handle a client's choice of tracks. A choice for an unknown track is remembered until the track appears.

        Raises:
            RequestRefused: LIMIT_EXCEEDED.
        """
        for choice in request.updates:
            sid = choice.track_sid
            if not 0 < len(sid) <= MAX_SID_CHARACTERS:
                continue
            if sid not in self._choices and len(self._choices) >= MAX_SUBSCRIPTION_CHOICES:
                raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "too many tracks are chosen")
            self._choices[sid] = choice.subscribe
            if (track := self._participant.room.data_tracks.tracks.get(sid)) is not None:
                self.consider(track)

    def consider(self, track: DataTrack) -> None:
        """Start or stop a subscription so that it matches choices, permissions and access."""
        sid, me = track.info.sid, self._participant
        wanted, allowed = track.announced and self._wants(track), self._may_have(track)
        if wanted and allowed != self._told.get(sid, True):
            self._changed[sid] = track
            self._tell_soon()
        if not (wanted and allowed):
            self._drop(track)
        elif sid not in self._active:
            self._active[sid] = track
            track.subscribers[me.sid] = me
            self._tell_soon()

    def forget(self, track: DataTrack) -> None:
        """Stop a subscription to a track that has ended, and forget the client's choice."""
        self._drop(track)
        self._choices.pop(track.info.sid, None)
        self._told.pop(track.info.sid, None)
        self._changed.pop(track.info.sid, None)

    def repeat(self) -> None:
        """Tell a resumed client again the handles of its subscriptions, and what it may have that was refused once."""
        for sid in self._told:
            track = self._changed[sid] = self._participant.room.data_tracks.tracks[sid]
            self._told[sid] = not self._may_have(track)  # whatever it was told may not have come
        if self._has_handles:
            self._tell_soon()

    def tick(self) -> None:
        """Tell the client its handles if that was not allowed before."""
        if self._late:
            self._tell_soon()

    def close(self) -> None:
        """End its tracks and subscriptions, because it leaves."""
        if self._telling is not None:
            self._telling.cancel()
        for track in self._active.values():
            del track.subscribers[self._participant.sid]
        self._active.clear()
        while self._published:
            _, track = self._published.popitem()
            self._participant.room.data_tracks.remove(track)

    def _wants(self, track: DataTrack) -> bool:
        """Tell whether it would have a track. Nobody has its own, nor one of who is hidden: its handle would tell the
        name."""
        if not self._participant.permission.can_subscribe or track.publisher.hidden:
            return False
        if track.publisher is self._participant:
            return False
        return self._choices.get(track.info.sid, self._auto_subscribe)

    def _may_have(self, track: DataTrack) -> bool:
        """Tell whether its publisher lets the participant have a track. A recorder may have all."""
        me = self._participant
        return me.records or track.publisher.access.allows(me.sid, me.identity, track.info.sid)

    def _drop(self, track: DataTrack) -> None:
        if self._active.pop(track.info.sid, None) is not None:
            del track.subscribers[self._participant.sid]
            self._tell_soon()

    def _tell_soon(self) -> None:
        """Tell the client all handles and what it may have, once for all changes of this turn of the event loop."""
        if self._telling is None and not self._participant.removed:
            tell = partial(self._participant.room.guard, self._participant, self._tell)
            self._telling = asyncio.get_running_loop().call_soon(tell)

    def _tell(self) -> None:
        self._telling = None
        now = self._participant.node.clock()
        self._late = not self._allowance.allows(now)
        if self._late:
            self._participant.node.dropped["data_handles_delayed"] += 1
            return
        self._participant.room.before_description()
        size = self._tell_access()
        handles = {
            track.handle: DataTrackSubscriberHandles.PublishedDataTrack(
                publisher_identity=track.publisher.identity, publisher_sid=track.publisher.sid, track_sid=sid
            )
            for sid, track in self._active.items()
        }
        self._has_handles = True
        message = DataTrackSubscriberHandles(sub_handles=handles)
        self._allowance.charge(max(size + message.ByteSize(), TOLD_BYTES))
        self._participant.send(SignalResponse(data_track_subscriber_handles=message))

    def _tell_access(self) -> int:
        """Tell the client which of the tracks that it wants it may have now, and which not. Returns the bytes."""
        size, (changed, self._changed) = 0, (self._changed, {})
        for sid, track in changed.items():
            allowed = self._may_have(track)
            if self._wants(track) and allowed != self._told.get(sid, True):
                self._told[sid] = allowed
                update = SubscriptionPermissionUpdate(
                    participant_sid=track.publisher.sid, track_sid=sid, allowed=allowed
                )
                self._participant.send(SignalResponse(subscription_permission_update=update))
                size += update.ByteSize()
        return size
