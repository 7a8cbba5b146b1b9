"""What one participant publishes: announced tracks, their m-sections, and how others learn of them.

The life of a track: `add_track` makes it pending; an offer's m-section claims it (`decide`); the engine gets a track,
and the room tells everybody else (`apply`). A packet in another codec than was negotiated first changes what they know
(`stream_started`).
"""

from collections.abc import Iterable

from livekit.protocol.models import (
    AUDIO,
    MICROPHONE,
    SCREEN_SHARE,
    SCREEN_SHARE_AUDIO,
    UNKNOWN,
    VIDEO,
    AudioTrackFeature,
    TrackInfo,
    TrackSource,
)
from livekit.protocol.rtc import (
    AddTrackRequest,
    MuteTrackRequest,
    RequestResponse,
    SignalResponse,
    TrackUnpublishedResponse,
)

from sfu.events import StreamStarted
from sfu.parameters import Codec, Kind
from signaling.errors import RequestRefused
from signaling.http.join import MAX_NAME_LENGTH
from signaling.limits import MAX_ADD_TRACK_BYTES, MAX_PENDING_TRACKS, MAX_TRACKS
from signaling.participants.owner import Owner
from signaling.rooms import tracks
from signaling.rooms.capacity import SERVER_FULL, Needs
from signaling.rooms.tracks import EngineTrack, Track
from signaling.sdp.offered import MAX_ENCODINGS
from signaling.sdp.peer_connection import AnswerResult, PublishDecision, Published, SendingSection


class Publishing:
    """The publishing half of a participant."""

    def __init__(self, participant: Owner) -> None:
        """Start without tracks."""
        self._participant = participant
        self.pending: dict[str, Track] = {}
        """Tracks that are announced and have no m-section yet, by sid, oldest first."""
        self.tracks: dict[str, Track] = {}
        """Tracks with an engine track, by sid."""
        self._counted = 0
        """The part of the room's `track_count` that is this participant's."""
        self._claims: dict[str, tuple[Track, Codec | None]] = {}
        """mid -> (its track, the codec announced for it). `decide` fills it; `apply` of the same offer empties it."""

    def find(self, sid: str) -> Track:
        """Return an own track, pending or published.

        Raises:
            RequestRefused: NOT_FOUND.
        """
        track = self.tracks.get(sid) or self.pending.get(sid)
        if track is None:
            raise RequestRefused(RequestResponse.NOT_FOUND, f"no track {sid!r}")
        return track

    def add_track(self, request: AddTrackRequest) -> TrackInfo:
        """Announce a track that the client is about to publish. Return the description for `track_published`.

        A request that carries a sid adds a codec to a published track. Asking twice for the same pending track
        gives the same answer.

        Raises:
            RequestRefused: not allowed, too many, or the track to extend is unknown.
        """
        self._check(request)
        if request.sid:
            track = self.find(request.sid)
            tracks.add_codecs(track.info, request)
            track.codecs = tracks.announced_codecs(track.info)
            return track.info
        for track in self.pending.values():
            if request.cid in track.cids:
                return track.info
        if len(self.pending) >= MAX_PENDING_TRACKS or len(self.pending) + len(self.tracks) >= MAX_TRACKS:
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, "too many tracks")
        info = tracks.describe(request)
        listeners = self._participant.room.listeners(self._participant)
        if not self._participant.node.capacity.promise(needs_of(info)._replace(subscriptions=listeners)):
            raise RequestRefused(RequestResponse.LIMIT_EXCEEDED, SERVER_FULL)
        self.pending[info.sid] = Track(info, self._participant, tracks.announced_codecs(info))
        self._recount()
        return info

    def set_muted(self, sid: str, muted: bool) -> None:
        """Note that the client muted a track, or unmuted it, also one that the server had muted.

        Raises:
            RequestRefused: NOT_FOUND.
        """
        track = self.find(sid)
        track.mute_unanswered = False
        if not muted:
            self._block(track, blocked=False)
        self._note_muted(track, muted)

    def mute_by_server(self, sid: str, muted: bool) -> TrackInfo | None:
        """Tell the client to mute or unmute a track; return its description, None if there is no such track.

        A track that is muted so is not forwarded, even if the client goes on sending, until the client unmutes it.
        """
        self._send_mute(sid, muted)
        track = self.tracks.get(sid) or self.pending.get(sid)
        if track is None:
            return None
        track.mute_unanswered = True
        self._block(track, blocked=muted)
        self._note_muted(track, muted)
        return track.info

    def repeat_mutes(self) -> None:
        """Tell a resumed client again which tracks the server muted or unmuted, unless it has answered.

        The message may have been lost with the socket. livekit-client would then say that it is not muted as soon as an
        update shows it a muted track, and so undo what the server did.
        """
        for track in (*self.tracks.values(), *self.pending.values()):
            if track.mute_unanswered:
                self._send_mute(track.sid, track.info.muted)

    def _send_mute(self, sid: str, muted: bool) -> None:
        self._participant.send(SignalResponse(mute=MuteTrackRequest(sid=sid, muted=muted)))

    def _note_muted(self, track: Track, muted: bool) -> None:
        if track.info.muted != muted:
            track.info.muted = muted
            self._participant.changed()

    def _block(self, track: Track, blocked: bool) -> None:
        if track.blocked != blocked:
            track.blocked = blocked
            self._participant.room.blocked_changed(track)

    def set_audio_features(self, sid: str, features: Iterable[AudioTrackFeature]) -> None:
        """Note the features of an audio track. Unknown features are left out.

        Raises:
            RequestRefused: NOT_FOUND.
        """
        track = self.find(sid)
        known = AudioTrackFeature.values()
        track.info.audio_features[:] = [feature for feature in dict.fromkeys(features) if feature in known]
        self._participant.changed()

    def set_video_size(self, sid: str, width: int, height: int) -> None:
        """Note the new size of a video track, in pixels.

        Raises:
            RequestRefused: NOT_FOUND.
        """
        track = self.find(sid)
        track.info.width, track.info.height = width, height
        self._participant.changed()

    @property
    def count(self) -> int:
        """The number of tracks that are published or announced."""
        return len(self.tracks) + len(self.pending)

    def needs(self) -> Needs:
        """Return the rows of the engine's tables that the tracks take, without subscriptions to them."""
        total = Needs()
        for track in (*self.tracks.values(), *self.pending.values()):
            total = total.plus(needs_of(track.info))
        return total

    def decide(self, section: SendingSection) -> PublishDecision | None:
        """Match a new sending m-section with an announced track; None if there is none."""
        track = self._claim(section)
        if track is None:
            return None
        barred = tracks.barred_codecs(self._participant.room.options.enabled_codecs)
        offered = [codec for codec, _ in section.codecs if codec not in barred]
        if not offered:
            return None
        codec = _codec_for(track, section.cid) if section.kind is Kind.VIDEO else None
        self._claims[section.mid] = (track, codec)
        if codec not in offered:
            codec = None
        return PublishDecision(
            codec=codec,
            track_sid=track.sid,
            dtx=not track.info.disable_dtx,
            stereo=track.info.stereo,
            red=not track.info.disable_red,
            voices=self._voices(track),
            screen=track.info.source in (SCREEN_SHARE, SCREEN_SHARE_AUDIO),
            barred=barred,
            bitrates=tuple(layer.bitrate for layer in sorted(track.info.layers, key=lambda layer: layer.quality)),
        )

    def _voices(self, track: Track) -> tuple[int, int]:
        """Return the group of voices of a track, and how many of it are forwarded; (0, 0): it is always forwarded.

        Only microphones belong to the group, not the sound of a shared screen or a recording.
        """
        room = self._participant.room
        is_voice = track.info.type == AUDIO and track.info.source in (UNKNOWN, MICROPHONE)
        return (room.voices, room.options.forward_loudest) if is_voice and room.voices else (0, 0)

    def apply(self, result: AnswerResult) -> None:
        """Take over what an answered offer started, and then what it stopped: a track may change its engine track."""
        for published in result.published:
            self._begin(published)
        for published in result.changed:
            if (track := self._participant.node.tracks.get(published.engine_track)) is not None:
                track.engine_tracks[published.engine_track].formats = published.formats
        for ended in result.ended:
            self._end(ended)
        self._claims.clear()

    def stream_started(self, event: StreamStarted) -> None:
        """Note the first packet of a layer, or the first one in another codec."""
        track = self._participant.node.tracks[event.track]
        engine_track = track.engine_tracks[event.track]
        if event.codec not in tracks.MIME_TYPES:
            return
        before = _mime_types(track.info)
        turned = engine_track.turn_to(event.codec, event.payload_type)
        svc = engine_track.has_layers_inside(event.codec)
        tracks.note_layer(track.info, event.codec, engine_track.mid, event.layer, event.ssrc, svc)
        if turned and track.codecs:
            track.codecs = tracks.announced_codecs(track.info)
        if not track.announced:
            return
        if before != _mime_types(track.info):
            self._participant.changed()
        if turned:
            self._participant.room.engine_tracks_changed(track)

    def revoke_forbidden(self) -> None:
        """End tracks, published or announced, that the permission no longer allows, and tell the client."""
        for track in (*self.tracks.values(), *self.pending.values()):
            if not self._may_publish(track.info.source):
                self._forget(track)
                self._participant.send(SignalResponse(track_unpublished=TrackUnpublishedResponse(track_sid=track.sid)))

    def close(self) -> None:
        """Take all tracks out of the room. The engine's rows are closed together with the transport."""
        self.pending.clear()
        try:
            for track in tuple(self.tracks.values()):
                self._forget(track)
        finally:
            self.tracks.clear()
            self._recount()

    def _recount(self) -> None:
        """Tell the room how many tracks there are now, so that it need not ask everybody for each join."""
        self._participant.room.track_count += self.count - self._counted
        self._counted = self.count

    def _check(self, request: AddTrackRequest) -> None:
        if not self._may_publish(request.source):
            raise RequestRefused(RequestResponse.NOT_ALLOWED, "the token does not allow publishing this source")
        if not request.cid or len(request.name) > MAX_NAME_LENGTH or request.ByteSize() > MAX_ADD_TRACK_BYTES:
            raise RequestRefused(RequestResponse.INVALID_REQUEST, "a track needs a cid, and a short description")
        if request.type not in (AUDIO, VIDEO) or request.source < UNKNOWN:
            raise RequestRefused(RequestResponse.UNSUPPORTED_TYPE, "a track is audio or video")

    def _may_publish(self, source: TrackSource) -> bool:
        permission = self._participant.permission
        sources = permission.can_publish_sources
        return permission.can_publish and (not sources or source in sources)

    def _claim(self, section: SendingSection) -> Track | None:
        """Find the track of an m-section: by cid, else the first one of this kind that waits for an m-section.

        The second rule is for Firefox, which gives its tracks other names in SDP. A third rule finds the track that the
        m-section had, for a client that only renamed what it sends there.
        """
        claimed = {track.sid for track, _ in self._claims.values()}
        waiting = [track for sid, track in self.pending.items() if track.kind is section.kind and sid not in claimed]
        published = [track for sid, track in self.tracks.items() if track.kind is section.kind and sid not in claimed]
        extended = [track for track in published if _awaited_cids(track)]
        for track in waiting:
            if section.cid in track.cids:
                return track
        for track in extended:
            if section.cid in _awaited_cids(track):
                return track
        renamed = [track for track in published if section.mid in {entry.mid for entry in track.engine_tracks.values()}]
        chosen = next(iter(waiting or extended or renamed), None)
        if chosen is not None and chosen.info.codecs:
            chosen.info.codecs[0].sdp_cid = section.cid
        return chosen

    def _begin(self, published: Published) -> None:
        track = self.pending.pop(published.track_sid, None) or self.tracks.get(published.track_sid)
        if track is None:
            return
        _, intended = self._claims.get(published.mid, (track, None))
        engine_track = EngineTrack(
            published.engine_track,
            published.mid,
            published.codec,
            published.fmtp,
            published.formats,
            intended,
            published.streams,
        )
        track.engine_tracks[published.engine_track] = engine_track
        tracks.note_codec(track.info, engine_track.shown, published.mid)
        self.tracks[track.sid] = track
        self._participant.node.tracks[published.engine_track] = track
        if track.announced:
            self._participant.changed()
            self._participant.room.engine_tracks_changed(track)
        else:
            track.announced = True
            self._participant.room.track_announced(track)

    def _end(self, ended: Published) -> None:
        track = self._participant.node.tracks.pop(ended.engine_track, None)
        if track is None:
            return
        del track.engine_tracks[ended.engine_track]
        if not track.engine_tracks:
            self._forget(track)
            self._participant.changed()
        elif track.announced:
            self._participant.room.engine_tracks_changed(track)

    def _forget(self, track: Track) -> None:
        self.pending.pop(track.sid, None)
        self.tracks.pop(track.sid, None)
        self._recount()
        for engine_track in track.engine_tracks:
            self._participant.node.tracks.pop(engine_track, None)
        if track.announced:
            track.announced = False
            self._participant.room.track_removed(track)


def _mime_types(info: TrackInfo) -> tuple[str, ...]:
    return (info.mime_type, *(entry.mime_type for entry in info.codecs))


def needs_of(info: TrackInfo) -> Needs:
    """Return the rows that a track takes: an engine track for each codec, with a stream for each layer."""
    if info.type == AUDIO:
        return Needs(tracks=1, streams=1)
    codecs = max(1, len(info.codecs))
    return Needs(tracks=codecs, streams=codecs * MAX_ENCODINGS)


def _codec_for(track: Track, cid: str) -> Codec | None:
    """Return the codec that the client announced for this cid, else the first that has no engine track yet."""
    for entry in track.info.codecs:
        if entry.cid and entry.cid == cid:
            return tracks.parse_codec(entry.mime_type)
    return _awaited_codec(track)


def _awaited_codec(track: Track) -> Codec | None:
    """Return the first codec with a cid and without an engine track."""
    return next(iter(_awaited_cids(track).values()), None)


def _awaited_cids(track: Track) -> dict[str, Codec]:
    received = {
        codec for engine_track in track.engine_tracks.values() for codec in (engine_track.codec, engine_track.intended)
    }
    codecs = ((entry.cid, tracks.parse_codec(entry.mime_type)) for entry in track.info.codecs)
    return {cid: codec for cid, codec in codecs if cid and codec is not None and codec not in received}
