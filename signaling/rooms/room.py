"""One room: its participants and tracks, what they are told of each other, and when it ends.

All calls come from the event loop's thread. What a participant causes runs inside `guard`, so that an exception removes
only that participant.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import structlog
from livekit.protocol import models
from livekit.protocol.models import (
    DUPLICATE_IDENTITY,
    UNKNOWN_REASON,
    DisconnectReason,
    ParticipantInfo,
)
from livekit.protocol.rtc import (
    ConnectionQualityInfo,
    ConnectionQualityUpdate,
    LeaveRequest,
    ParticipantUpdate,
    RoomUpdate,
    SignalResponse,
    SpeakersChanged,
)

from sfu.engine import LayerUse
from sfu.parameters import TrackId
from signaling.config.configuration import RoomOptions
from signaling.errors import SessionEnded
from signaling.http.connection import Broadcast
from signaling.records.dispatches import Dispatches
from signaling.records.kept_bytes import KeptBytesOfRoom
from signaling.records.nonces import Nonces
from signaling.records.settings import RoomSettings
from signaling.rooms.capacity import Needs
from signaling.rooms.data_tracks import DataTracksOfRoom
from signaling.rooms.departures import Departures
from signaling.rooms.description import Description
from signaling.rooms.dynacast import Dynacast
from signaling.rooms.events import ParticipantLeft, RoomFinished, RoomStarted, TrackPublished, TrackUnpublished
from signaling.rooms.headcount import Headcount
from signaling.rooms.member import Member
from signaling.rooms.node import Node
from signaling.rooms.occupancy import Occupancy
from signaling.rooms.quality import Qualities
from signaling.rooms.speakers import Speakers
from signaling.rooms.tracks import Demand, Publisher, Track
from signaling.rooms.updates import Updates, batches

TIMEOUT_CHECK_INTERVAL_S = 1.0
"""The time between two checks of each participant's timeouts, which are all longer."""
ROOM_UPDATE_INTERVAL_S = 5.0
TRANSPORTS_OF_A_JOIN = 2
"""The most transports that a client opens when it joins."""
SMALL_ROOM = 50
"""The size up to which every change is told at once."""

log = structlog.get_logger("signaling.room")


class Room:
    """A named place where participants meet."""

    def __init__(self, node: Node, name: str, options: RoomOptions, settings: RoomSettings | None = None) -> None:
        """Make an empty room with these options, and with what `settings` change of them.

        Raises:
            TooMuchKept: rooms keep too much already.
        """
        self.node = node
        self.participants: dict[str, Member] = {}
        """The participants by identity."""
        self.tracks: dict[str, Track] = {}
        """Announced tracks, by sid."""
        self.data_tracks = DataTracksOfRoom(self, node.dropped)
        self.track_count = 0
        """The tracks that all participants publish or are about to. Each `Publishing` adds and subtracts its own."""
        self.speakers = Speakers()
        self._kept = KeptBytesOfRoom(node.kept)
        self._headcount = Headcount()
        self._description = Description(name, options, self._headcount, self._kept)
        self.dispatches = Dispatches(name, self._kept, node.dropped)
        self.nonces = Nonces()
        """Those of data packets that were sent already."""
        media = node.config.media
        self._dynacast = Dynacast(node.engine.set_resting, media.dynacast_pause_delay_s, media.dynacast_denied_delay_s)
        self._dynacast_handle: asyncio.Handle | None = None
        self.qualities = Qualities()
        self._updates = Updates(lambda: node.clock(), self._tell, node.dropped)
        self._untold: dict[str, Track] = {}
        """Announced tracks of which nobody was told yet, because the update waits; by sid."""
        self._departures = Departures(node.clock())
        self.occupancy = Occupancy(self._headcount, node.clock())
        self._counts_stale = False
        self._room_update_at = self._timeouts_checked_at = node.clock()
        self.closed = False
        """The room has ended, and nobody can join it any more."""
        if settings is not None:
            self._begin_with(settings)
        self.voices = node.take_group() if options.forward_loudest else 0
        """The engine's group of microphones of which only the loudest are forwarded; 0: all are forwarded."""
        node.events.emit(RoomStarted(self))

    @property
    def name(self) -> str:
        """The name that tokens carry."""
        return self._description.name

    @property
    def options(self) -> RoomOptions:
        """The operator's options, as far as settings of this room did not change them."""
        return self._description.options

    @property
    def info(self) -> models.Room:
        """The description of the room that clients are sent."""
        return self._description.info

    def _begin_with(self, settings: RoomSettings) -> None:
        try:
            self.configure(settings)
            for agent in settings.agents:
                self.dispatches.add(agent)
        except BaseException:
            self._kept.release()
            raise

    def configure(self, settings: RoomSettings) -> None:
        """Take over the settings that are set; tell the members if one concerns them.

        Raises:
            TooMuchKept: rooms keep too much metadata already. Nothing is changed then.
        """
        if self._description.configure(settings):
            self._tell_room()

    def set_metadata(self, metadata: str) -> None:
        """Set the room's metadata, and tell the members.

        Raises:
            TooMuchKept: rooms keep too much already. The metadata stay as they were.
        """
        self._description.set_metadata(metadata)
        self._tell_room()

    def _tell_room(self) -> None:
        self._broadcast(SignalResponse(room_update=RoomUpdate(room=self.info)))

    # Members.

    def add(self, participant: Member) -> None:
        """Add a participant. One with the same identity is removed."""
        previous = self.participants.get(participant.identity)
        if previous is not None:
            self.remove(previous, DUPLICATE_IDENTITY)
        self.participants[participant.identity] = participant
        self._headcount.note(participant)
        self._note_recorder(participant)
        self._counts_stale = True
        self.occupancy.note(self.node.clock())

    def remove(
        self,
        participant: Member,
        reason: DisconnectReason,
        action: LeaveRequest.Action = LeaveRequest.DISCONNECT,
    ) -> None:
        """Remove a participant, free what it held, and tell the others. Nothing happens if it was removed before."""
        if participant.removed:
            return
        participant.set_disconnected(reason)
        participant.leave(reason, action)
        if self.participants.get(participant.identity) is participant:
            del self.participants[participant.identity]
            self._headcount.forget(participant)
            self._counts_stale = True
            self._note_recorder(participant)
        try:
            participant.close()
        except Exception:
            log.exception("a participant could not be freed completely", room=self.name, identity=participant.identity)
        self._silence(participant)
        self.qualities.forget(participant.sid)
        if participant.joined:
            self.participant_changed(participant)
            if not participant.hidden:
                self._departures.note(participant.info, self.node.clock())
        self.occupancy.note(self.node.clock())
        participant.release_parts()
        if participant.joined:
            self.node.events.emit(ParticipantLeft(self, participant, reason))

    def _note_recorder(self, participant: Member) -> None:
        """Tell everybody when a recording begins or ends (`active_recording`)."""
        if self._description.note_recorder(participant):
            self._tell_room()

    def others(self, participant: Publisher) -> list[Member]:
        """Return all other participants, hidden ones included."""
        return [other for other in self.participants.values() if other is not participant]

    def visible_to(self, participant: Member) -> list[ParticipantInfo]:
        """Return the descriptions of all others that a participant may know of."""
        everybody = self.participants.values()
        return [other.info for other in everybody if other is not participant and other.joined and not other.hidden]

    def departures_since(self, time_s: float) -> list[ParticipantInfo] | None:
        """Return who left since a time or shortly before, and is not back; None: too many to remember."""
        return self._departures.since(time_s, self.participants)

    def is_over(self, now: float) -> bool:
        """Tell whether the room has been without people for long enough. Agents and recorders do not keep it open."""
        return self.occupancy.is_over(now, self.options)

    def is_full(self, identity: str, person: bool) -> bool:
        """Tell whether the room has no place for a participant with this identity. For agents and recorders it has."""
        if not person or identity in self.participants:
            return False
        return self.occupancy.is_full(self.options.max_participants)

    # Rows of the engine's tables.

    def needs(self) -> Needs:
        """Return the rows that all members have or want, with those of sessions that have not joined yet."""
        total, tracks = Needs(), self.track_count
        for participant in self.participants.values():
            total = total.plus(participant.needs(tracks))
        joining = self.occupancy.expected
        return total.plus(Needs(transports=TRANSPORTS_OF_A_JOIN * joining, subscriptions=tracks * joining))

    def needs_of_join(self, identity: str, transports: int, takes_all: bool) -> Needs:
        """Return the rows that a join takes, beyond those of the participant that it replaces."""
        tracks = self.track_count
        needs = Needs(transports=transports, subscriptions=tracks if takes_all else 0)
        replaced = self.participants.get(identity)
        return needs if replaced is None else needs.beyond(replaced.needs(tracks))

    def listeners(self, publisher: Member) -> int:
        """Return how many will be subscribed to what `publisher` publishes next."""
        return sum(each.subscriptions.takes_all for each in self.participants.values() if each is not publisher)

    # Changes of participants.

    def guard(self, participant: Member, work: Callable[[], None]) -> None:
        """Run `work` for a participant. An exception removes that participant and nothing else."""
        if participant.removed:
            return
        try:
            work()
        except SessionEnded as error:
            log.info("session ended", room=self.name, identity=participant.identity, why=error.text)
            self.remove(participant, error.reason, error.action)
        except Exception:
            log.exception("error while serving a participant", room=self.name, identity=participant.identity)
            self.remove(participant, UNKNOWN_REASON, LeaveRequest.RECONNECT)

    def participant_changed(self, participant: Member, at_once: bool = False) -> None:
        """Tell everybody of a participant's new state, soon, and before any SDP that depends on it.

        `at_once`: tell it in this turn of the event loop even if the room is large.
        """
        if not participant.removed:
            self._headcount.note(participant)
        self._counts_stale = True
        self._note_recorder(participant)
        small = len(self.participants) <= SMALL_ROOM
        soon = at_once or small or participant.hidden or participant.info.is_publisher
        self._updates.note(participant, soon=soon)

    def before_description(self) -> None:
        """Send updates that are due in this turn, because a session description that depends on them is sent now."""
        self._updates.before_description()

    def participant_hidden(self, participant: Member) -> None:
        """Tell the others that a participant left, because it is hidden from now on."""
        self._silence(participant)
        self._updates.forget(participant)
        self.data_tracks.hide(participant)
        info = ParticipantInfo(sid=participant.sid, identity=participant.identity, state=ParticipantInfo.DISCONNECTED)
        self._departures.note(info, self.node.clock())
        self._broadcast(_update([info]), but=(participant,))

    # Changes of tracks.

    def track_announced(self, track: Track) -> None:
        """Tell everybody of a track that is negotiated now, and then subscribe those who want it.

        Clients ignore media of a participant or track that they do not know, so the update comes first.
        """
        self.tracks[track.sid] = track
        self._dynacast.add(track)
        self._schedule_dynacast()
        track.publisher.changed()
        self.node.events.emit(TrackPublished(self, track))
        self._updates.before_description()
        if self._updates.waits(track.publisher):
            self._untold[track.sid] = track
        else:
            self._consider(track)

    def track_removed(self, track: Track) -> None:
        """End a track. Its publisher's own update tells the others."""
        self.tracks.pop(track.sid, None)
        self._untold.pop(track.sid, None)
        for other in self.others(track.publisher):
            self.guard(other, partial(other.subscriptions.forget, track))
        self._dynacast.remove(track)
        self.node.events.emit(TrackUnpublished(self, track))

    def engine_tracks_changed(self, track: Track) -> None:
        """Adapt subscriptions to a track with another codec, one more, or one less."""
        for other in self.others(track.publisher):
            self.guard(other, partial(other.subscriptions.engine_tracks_changed, track))
        self._schedule_dynacast()

    def subscribe_all(self, participant: Member) -> None:
        """Subscribe a participant to all tracks that it wants and may have, and to no others."""
        for track in self.tracks.values():
            participant.subscriptions.consider(track)
        for data_track in self.data_tracks.tracks.values():
            if data_track.publisher is not participant:
                participant.data_tracks.consider(data_track)

    def access_changed(self, publisher: Member) -> None:
        """Adapt subscriptions to a publisher's new list of who may subscribe."""
        for track in self._tracks_of(publisher):
            if track.sid not in self._untold:
                self._consider(track)
        self.data_tracks.consider(publisher)

    def blocked_changed(self, track: Track) -> None:
        """Stop forwarding a track that the server muted, or go on."""
        for other in self.others(track.publisher):
            self.guard(other, partial(other.subscriptions.blocked_changed, track))

    def set_demand(self, track: Track, subscriber_sid: str, demand: Demand | None) -> None:
        """Note what a subscriber wants to see. The publisher is told in the next turn of the event loop."""
        if self._dynacast.set_demand(track, subscriber_sid, demand):
            self._schedule_dynacast()

    def repeat_to(self, participant: Member) -> None:
        """Tell a resumed client again what it may have missed about its tracks and subscriptions."""
        for track in self._tracks_of(participant):
            self._dynacast.repeat(track)
        participant.subscriptions.repeat()
        participant.data_tracks.repeat()

    def tell_speakers(self, participant: Member, since: float) -> None:
        """Tell a client who speaks, and who stopped since `since` (node's clock, seconds)."""
        if speakers := self.speakers.since(since):
            participant.send(SignalResponse(speakers_changed=SpeakersChanged(speakers=speakers)))

    # Time.

    def tick(self, now: float, levels: Mapping[str, float], uses: Mapping[TrackId, LayerUse]) -> None:
        """Do what is due.

        Args:
            now: the node's clock, in seconds.
            levels: participant sid -> audio level of those who speak here.
            uses: what the engine's `layer_uses` returned.
        """
        if changes := self.speakers.update(levels, now):
            self._broadcast(SignalResponse(speakers_changed=SpeakersChanged(speakers=changes)))
        self._dynacast.tick(now, uses)
        if now - self._timeouts_checked_at >= TIMEOUT_CHECK_INTERVAL_S:
            self._timeouts_checked_at = now
            for participant in tuple(self.participants.values()):
                self.guard(participant, partial(participant.tick, now))
        self._updates.tick(now)
        if self._counts_stale and now - self._room_update_at >= ROOM_UPDATE_INTERVAL_S:
            self._tell_counts(now)

    def report_quality(self, scores: Mapping[str, float]) -> None:
        """Tell everybody of connections whose quality changed, and new participants of all connections.

        Args:
            scores: what `signaling.rooms.quality.measure` returned.
        """
        changed, newcomers = self.qualities.note(self.participants.values(), scores)
        if changed:
            self._broadcast(_quality_update(changed), but=newcomers)
        if newcomers:
            everything = Broadcast(_quality_update(self.qualities.infos()))
            for participant in newcomers:
                participant.send(everything)

    def close(self, reason: DisconnectReason, action: LeaveRequest.Action) -> None:
        """End the room and remove everybody. `action` says whether clients reconnect."""
        for participant in tuple(self.participants.values()):
            self.remove(participant, reason, action)
        if self._dynacast_handle is not None:
            self._dynacast_handle.cancel()
        self._updates.close()
        self._kept.release()
        self.node.give_back_group(self.voices)
        if not self.closed:
            self.closed = True
            self.node.events.emit(RoomFinished(self, reason))

    def _tell(self, told: list[tuple[Member, ParticipantInfo]]) -> None:
        """Send updates about participants.

        Everybody is told of a participant that is not hidden. A hidden one is told of itself. Who was told of itself at
        once, when it made the change, is not told again.
        """
        knowing = {participant.sid: participant for participant, _ in told if participant.knows_itself}
        for participant, info in told:
            if participant.hidden and participant.sid not in knowing:
                participant.send(_update([info]))
        infos = [info for participant, info in told if not participant.hidden]
        for batch in batches(infos):
            informed = [knowing[info.sid] for info in batch if info.sid in knowing]
            self._broadcast(_update(batch), but=informed)
            for participant in informed:
                if others := [info for info in batch if info.sid != participant.sid]:
                    participant.send(_update(others))
        for participant, _ in told:
            if not (participant.removed or participant.hidden):
                self.data_tracks.announced(participant)
        publishers = {participant.sid for participant, _ in told} if self._untold else ()
        for track in tuple(self._untold.values()):
            if track.publisher.sid in publishers:
                del self._untold[track.sid]
                self._consider(track)

    def _tracks_of(self, publisher: Member) -> list[Track]:
        return [track for track in self.tracks.values() if track.publisher is publisher]

    def _consider(self, track: Track) -> None:
        """Subscribe everybody who wants a track and may have it, and nobody else."""
        for other in self.others(track.publisher):
            self.guard(other, partial(other.subscriptions.consider, track))

    def _broadcast(self, response: SignalResponse, but: Collection[Member] = ()) -> None:
        shared = Broadcast(response)
        for participant in self.participants.values():
            if participant.joined and participant not in but:
                participant.send(shared)

    def _silence(self, participant: Member) -> None:
        """Tell that a participant stopped speaking, before it leaves. Clients would keep it as a speaker otherwise."""
        if gone := self.speakers.forget(participant.sid, self.node.clock()):
            self._broadcast(SignalResponse(speakers_changed=SpeakersChanged(speakers=gone)))

    def _tell_counts(self, now: float) -> None:
        self._counts_stale = False
        if self._description.counts_changed():
            self._room_update_at = now
            self._tell_room()

    def _schedule_dynacast(self) -> None:
        if self._dynacast_handle is None:
            self._dynacast_handle = asyncio.get_running_loop().call_soon(self._update_dynacast)

    def _update_dynacast(self) -> None:
        self._dynacast_handle = None
        self._dynacast.update(self.node.clock())


def _update(infos: Iterable[ParticipantInfo]) -> SignalResponse:
    return SignalResponse(update=ParticipantUpdate(participants=infos))


def _quality_update(infos: Iterable[ConnectionQualityInfo]) -> SignalResponse:
    return SignalResponse(connection_quality=ConnectionQualityUpdate(updates=infos))
