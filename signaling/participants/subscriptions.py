"""What one participant receives: its choices, its access, and the engine's subscriptions that follow from them.

A track is *wanted* when the participant may subscribe, chose to (or subscribes to everything) and its publisher allows
it. Wanted tracks go to the renegotiation, and get their engine subscription with the offer or answer that carries them.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from livekit.protocol.models import (
    CAMERA,
    HIGH,
    LOW,
    MICROPHONE,
    OFF,
    SCREEN_SHARE,
    SCREEN_SHARE_AUDIO,
    SE_CODEC_UNSUPPORTED,
    SE_TRACK_NOTFOUND,
    ClientInfo,
    Encryption,
    SubscriptionError,
)
from livekit.protocol.rtc import (
    ACTIVE,
    PAUSED,
    RequestResponse,
    SignalResponse,
    StreamStateInfo,
    StreamStateUpdate,
    SubscriptionPermissionUpdate,
    SubscriptionResponse,
    TrackSubscribed,
    UpdateSubscription,
    UpdateTrackSettings,
)

from sfu.events import SubscriptionPaused, SubscriptionStarted
from sfu.parameters import MAX_SPATIAL, Kind
from signaling.errors import RequestRefused
from signaling.limits import MAX_SID_CHARACTERS, MAX_SUBSCRIPTION_CHOICES, MAX_TOLD_ERRORS
from signaling.participants.owner import Owner
from signaling.rooms.capacity import SERVER_FULL, Needs
from signaling.rooms.tracks import Demand, Track, common_layer, spatial_layer, temporal_layer
from signaling.sdp.forwarding import Forwarding
from signaling.sdp.peer_connection import Beginning, WantedTrack

EVERYTHING = UpdateTrackSettings(quality=HIGH)
"""The settings of a client that has not said how it shows a track."""
LOWEST = UpdateTrackSettings(quality=LOW)
"""The settings of an adaptive client until it says how it shows a track. More could overload it in a large grid."""


FIRST_PROTOCOL_WITH_SYNC_STREAMS = 10
IN_STEP = {CAMERA: "camera", MICROPHONE: "camera", SCREEN_SHARE: "screen", SCREEN_SHARE_AUDIO: "screen"}
"""Source of a track -> the stream with which a receiver plays it in step, as livekit-server names them."""


class Subscriptions:
    """The subscribing half of a participant."""

    def __init__(self, participant: Owner, auto_subscribe: bool, adaptive_stream: bool) -> None:
        """Start without tracks.

        Args:
            participant: whose subscriptions these are.
            auto_subscribe: tracks without an explicit choice are wanted.
            adaptive_stream: the client will say how large it shows tracks.
        """
        self._participant = participant
        self._auto_subscribe = auto_subscribe
        self._default = LOWEST if adaptive_stream else EVERYTHING
        self._choices: dict[str, bool] = {}
        self._settings: dict[str, UpdateTrackSettings] = {}
        self._told: dict[str, bool] = {}
        """Sid of a wanted track that was once refused -> whether it is allowed now, as the client was told last."""
        self._waiting: dict[str, None] = {}
        """Sids of tracks that wait until the operator's limit allows one more, those that wait longest first."""
        self._capacity_bps = 0
        """What the path is to carry for all that is known, because that is simulated; 0: nothing is."""
        self._top_layer = MAX_SPATIAL
        """The highest spatial layer of any video within that."""

    @property
    def active(self) -> Mapping[str, Forwarding]:
        """The wanted tracks as they are forwarded, by sid."""
        return self._participant.renegotiation.forwardings

    @property
    def takes_all(self) -> bool:
        """Whether it will be subscribed to tracks that are published later."""
        return self._auto_subscribe and self._participant.permission.can_subscribe

    def consider(self, track: Track) -> None:
        """Start or stop a subscription so that it matches choices, permissions and access."""
        wanted = track.announced and self._wants(track)
        allowed = self._may_have(track)
        if wanted and allowed != self._told.get(track.sid, True):
            self._send_access(track, allowed)
        if wanted and allowed:
            if track.sid not in self.active and self._has_place(track):
                self._start(track)
            return
        self._waiting.pop(track.sid, None)
        if track.sid in self.active:
            self.drop(track)

    def repeat(self) -> None:
        """Tell a resumed client again which tracks it was refused, and which of those it may have now."""
        for sid, allowed in self._told.items():
            self._send_access(self._participant.room.tracks[sid], allowed)

    def drop(self, track: Track) -> None:
        """Stop forwarding a track. Its m-section becomes free in the next negotiation."""
        forwarding = self.active.get(track.sid)
        if forwarding is None:
            return
        if forwarding.id is not None:
            self._participant.node.subscribers.pop(forwarding.id, None)
        self._participant.renegotiation.unwant(track.sid)
        self._participant.room.set_demand(track, self._participant.sid, None)
        for sid in tuple(self._waiting):
            self.consider(self._participant.room.tracks[sid])

    def forget(self, track: Track) -> None:
        """Stop forwarding a track that has ended, and forget the client's choices for it."""
        self._waiting.pop(track.sid, None)
        self.drop(track)
        self._choices.pop(track.sid, None)
        self._settings.pop(track.sid, None)
        self._told.pop(track.sid, None)

    def engine_tracks_changed(self, track: Track) -> None:
        """Adapt to a codec of the track that was added, removed or replaced."""
        forwarding = self.active.get(track.sid)
        if forwarding is None:
            return
        self._participant.renegotiation.want(self._wanted(track))
        self._note_demand(forwarding)

    def blocked_changed(self, track: Track) -> None:
        """Adapt to a track that the server muted, or that may be forwarded again."""
        if (forwarding := self.active.get(track.sid)) is not None:
            self._apply(forwarding)

    def started(self, event: SubscriptionStarted) -> None:
        """Tell the publisher of a track when its first packet goes to anybody."""
        track = self._participant.room.tracks.get(self._participant.node.subscribers[event.subscription][1])
        if track is not None and not track.first_packet_sent:
            track.first_packet_sent = True
            track.publisher.send(SignalResponse(track_subscribed=TrackSubscribed(track_sid=track.sid)))

    def paused(self, event: SubscriptionPaused) -> None:
        """Tell the client that a video is paused for lack of bandwidth, or goes on."""
        track = self._participant.room.tracks.get(self._participant.node.subscribers[event.subscription][1])
        if track is not None:
            state = PAUSED if event.paused else ACTIVE
            info = StreamStateInfo(participant_sid=track.publisher.public_sid, track_sid=track.sid, state=state)
            self._participant.send(SignalResponse(stream_state_update=StreamStateUpdate(stream_states=[info])))

    def simulate_capacity(self, capacity_bps: int) -> None:
        """Send videos as if the path carried no more than this, in bits a second; 0: as the path allows.

        All of them fall to the best layer that they can have together, at the rates that their publishers announced.
        """
        self._capacity_bps = max(0, capacity_bps)
        self._limit_layers()

    def _limit_layers(self) -> None:
        top, before = MAX_SPATIAL, self._top_layer
        if self._capacity_bps:
            tracks = [self._track(forwarding) for forwarding in self.active.values()]
            top = common_layer([track.info for track in tracks if track.kind is Kind.VIDEO], self._capacity_bps)
        self._top_layer = top
        if top != before:
            for forwarding in self.active.values():
                self._apply(forwarding)

    def negotiated(self) -> None:
        """Take over the engine's subscriptions, and the codecs that the client lacks, after an offer or an answer."""
        if self._capacity_bps:
            self._limit_layers()
        node, unsupported = self._participant.node, self._participant.renegotiation.unsupported()
        for sid, forwarding in self.active.items():
            current, answered = forwarding.subscription, forwarding.answered
            if current != forwarding.id:
                if forwarding.id is not None:
                    node.subscribers.pop(forwarding.id, None)
                forwarding.id, forwarding.ready = current, answered
                if current is not None:
                    node.subscribers[current] = (self._participant, sid)
                    self._apply(forwarding)
            elif answered != forwarding.ready:
                forwarding.ready = answered
                self._apply(forwarding)
            if sid in unsupported:
                self._note_unsupported(forwarding)

    def update(self, request: UpdateSubscription) -> None:
        """Handle a client's choice of tracks. A choice for an unknown track is remembered until the track appears.

        Raises:
            RequestRefused: LIMIT_EXCEEDED.
        """
        by_participant = (sid for entry in request.participant_tracks for sid in entry.track_sids)
        errors_left = MAX_TOLD_ERRORS
        for sid in _different((*request.track_sids, *by_participant)):
            self._check_room(self._choices, sid)
            self._choices[sid] = request.subscribe
            track = self._participant.room.tracks.get(sid)
            if track is not None:
                if request.subscribe and not self.takes_all and sid not in self.active:
                    self._promise_one()
                was_refused = self._told.get(sid) is False
                self.consider(track)
                if request.subscribe and was_refused and self._told[sid] is False and self._wants(track):
                    self._send_access(track, allowed=False)  # whoever asks is answered, each time
            elif request.subscribe and errors_left:
                errors_left -= 1
                self._send_error(sid, SE_TRACK_NOTFOUND)

    def set(self, request: UpdateTrackSettings) -> None:
        """Handle how a client shows some tracks.

        Raises:
            RequestRefused: LIMIT_EXCEEDED.
        """
        for sid in _different(request.track_sids):
            self._check_room(self._settings, sid)
            self._settings[sid] = UpdateTrackSettings(
                disabled=request.disabled,
                quality=request.quality,
                width=request.width,
                height=request.height,
                fps=request.fps,
                priority=request.priority,
            )
            if (forwarding := self.active.get(sid)) is not None:
                self._apply(forwarding)
                self._note_demand(forwarding)

    def disable(self, track_sids: Iterable[str]) -> None:
        """Pause tracks without touching the rest of their settings (from a resuming client's state)."""
        for sid in _different(track_sids):
            self._check_room(self._settings, sid)
            settings = UpdateTrackSettings()
            settings.CopyFrom(self._settings.get(sid, self._default))
            settings.disabled = True
            settings.track_sids.append(sid)
            self.set(settings)

    def close(self) -> None:
        """End all subscriptions. The engine's rows are closed together with the transports."""
        for sid, forwarding in self.active.items():
            if forwarding.id is not None:
                self._participant.node.subscribers.pop(forwarding.id, None)
            if (track := self._participant.room.tracks.get(sid)) is not None:
                self._participant.room.set_demand(track, self._participant.sid, None)

    def _wants(self, track: Track) -> bool:
        return (
            track.publisher is not self._participant
            and self._participant.permission.can_subscribe
            and self._choices.get(track.sid, self._auto_subscribe)
        )

    def _may_have(self, track: Track) -> bool:
        """Tell whether its publisher lets the participant have a track. A recorder may have all."""
        if self._participant.records:
            return True
        return track.publisher.access.allows(self._participant.sid, self._participant.identity, track.sid)

    def _has_place(self, track: Track) -> bool:
        """Tell whether the operator's limit allows one more of this kind; note that a track waits if it does not."""
        limits = self._participant.node.config.limits
        limit = limits.video_subscriptions if track.kind is Kind.VIDEO else limits.audio_subscriptions
        if not limit or sum(self._track(each).kind is track.kind for each in self.active.values()) < limit:
            self._waiting.pop(track.sid, None)
            return True
        if track.sid not in self._waiting:
            self._waiting[track.sid] = None
            self._participant.node.dropped["subscriptions_beyond_limit"] += 1
        return False

    def _start(self, track: Track) -> None:
        self._participant.renegotiation.want(self._wanted(track))
        self._note_demand(self.active[track.sid])

    def _apply(self, forwarding: Forwarding) -> None:
        if forwarding.id is None:
            return
        engine, track = self._participant.node.engine, self._track(forwarding)
        settings = self._settings.get(track.sid, self._default)
        if track.kind is Kind.VIDEO:
            engine.set_layers(forwarding.id, *self._layers(track, settings), settings.priority, _pixels(settings))
        engine.set_paused(forwarding.id, track.blocked or _is_paused(settings) or not forwarding.ready)

    def _layers(self, track: Track, settings: UpdateTrackSettings) -> tuple[int, int]:
        """Return the highest spatial and temporal layer of use."""
        return min(spatial_layer(track.info, settings), self._top_layer), temporal_layer(settings.fps)

    def _track(self, forwarding: Forwarding) -> Track:
        """Return a wanted track. It exists: everybody forgets a track in the call that ends it."""
        return self._participant.room.tracks[forwarding.track_sid]

    def _wanted(self, track: Track) -> WantedTrack:
        return WantedTrack(
            track_sid=track.sid,
            publisher_sid=track.publisher.public_sid,
            kind=track.kind,
            sources=tuple((each.codec, each.description, each.id) for each in track.ranked()),
            cname=track.publisher.public_sid,
            stereo=track.info.stereo,
            begin=partial(self._begin, track),
            in_step=self._in_step(track),
        )

    def _in_step(self, track: Track) -> str:
        """Return the name of what a track is played in step with; empty: nothing, or the client could not know it.

        Firefox does not read a track's name in SDP but that of its stream, and old clients need it there as well.
        """
        client = self._participant.client
        if client.protocol < FIRST_PROTOCOL_WITH_SYNC_STREAMS or client.browser.lower().startswith("firefox"):
            return ""
        return IN_STEP.get(track.info.source, "") if self._participant.room.options.sync_streams else ""

    def _begin(self, track: Track) -> Beginning:
        """Return the layers that the client wants so far, and whether it gets silence, or nothing, of a muted track.

        pion tells its application of a track with the first packet. Silence that the server makes is not encrypted, so
        an encrypted track has none.
        """
        waits = self._participant.client.sdk == ClientInfo.GO and track.info.encryption == Encryption.NONE
        silence = waits and track.info.muted
        if track.kind is not Kind.VIDEO:
            return Beginning(silence=silence, blocked=track.blocked)
        settings = self._settings.get(track.sid, self._default)
        spatial, temporal = self._layers(track, settings)
        return Beginning(
            spatial,
            temporal,
            settings.priority,
            _pixels(settings),
            silence,
            track.blocked,
            self._participant.room.options.playout_delay_ms,
        )

    def _note_demand(self, forwarding: Forwarding) -> None:
        track = self._track(forwarding)
        if track.kind is not Kind.VIDEO:
            return
        sent = (each.codec for each in track.ranked() if each.codec not in forwarding.lacking)
        codec = next(sent, None) or track.backup(forwarding.lacking)
        if codec is None:
            demand = None
        else:
            settings = self._settings.get(track.sid, self._default)
            quality = OFF if _is_paused(settings) else track.quality_of(spatial_layer(track.info, settings))
            demand = Demand(codec, quality)
        self._participant.room.set_demand(track, self._participant.sid, demand)

    def _note_unsupported(self, forwarding: Forwarding) -> None:
        """Ask for a codec that the client has. If the publisher has none, tell the client once."""
        track = self._track(forwarding)
        lacking = forwarding.lacking | {each.codec for each in track.ranked()}
        if lacking == forwarding.lacking:
            return
        forwarding.lacking = lacking
        if track.backup(lacking) is None:
            self._send_error(track.sid, SE_CODEC_UNSUPPORTED)
        self._note_demand(forwarding)

    def _check_room(self, known: dict[str, bool] | dict[str, UpdateTrackSettings], sid: str) -> None:
        if len(sid) > MAX_SID_CHARACTERS:
            raise RequestRefused(RequestResponse.INVALID_REQUEST, "that is no track sid")
        if sid not in known and len(known) >= MAX_SUBSCRIPTION_CHOICES:
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, f"more than {MAX_SUBSCRIPTION_CHOICES} tracks chosen")

    def _promise_one(self) -> None:
        if not self._participant.node.capacity.promise(Needs(subscriptions=1)):
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, SERVER_FULL)

    def _send_error(self, sid: str, error: SubscriptionError) -> None:
        self._participant.send(SignalResponse(subscription_response=SubscriptionResponse(track_sid=sid, err=error)))

    def _send_access(self, track: Track, allowed: bool) -> None:
        self._told[track.sid] = allowed
        if track.publisher.hidden:
            return
        update = SubscriptionPermissionUpdate(participant_sid=track.publisher.sid, track_sid=track.sid, allowed=allowed)
        self._participant.send(SignalResponse(subscription_permission_update=update))


def _different(sids: Iterable[str]) -> Iterable[str]:
    """Each track once, in the order of the request, and what is empty never."""
    return filter(None, dict.fromkeys(sids))


def _is_paused(settings: UpdateTrackSettings) -> bool:
    return settings.disabled or (settings.quality == OFF and settings.width == 0)


def _pixels(settings: UpdateTrackSettings) -> int:
    """How large a client shows a track; 0: it has not said so."""
    return settings.width * settings.height
