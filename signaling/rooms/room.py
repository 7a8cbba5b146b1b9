"""One room: its participants and tracks, what they are told of each other, and when it ends.

All calls come from the event loop's thread. `guard` is the border: an exception inside costs one participant.
"""

import asyncio
import time
from collections import deque
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

from signaling import identifiers
from signaling.config.configuration import RoomOptions
from signaling.errors import SessionEnded
from signaling.http.connection import Broadcast
from signaling.limits import MAX_DEPARTURES
from signaling.rooms.capacity import Needs
from signaling.rooms.dynacast import Dynacast
from signaling.rooms.events import ParticipantLeft, RoomFinished, RoomStarted, TrackPublished, TrackUnpublished
from signaling.rooms.member import Member
from signaling.rooms.node import Node
from signaling.rooms.quality import Qualities
from signaling.rooms.speakers import Speakers
from signaling.rooms.tracks import MIME_TYPES, Demand, Publisher, Track
from signaling.rooms.updates import Updates, batches, without_texts

TEND_INTERVAL_S = 1.0
"""Between two looks at each participant's timeouts, all of which are seconds."""
QUALITY_INTERVAL_S = 5.0
ROOM_UPDATE_INTERVAL_S = 5.0
RETOLD_S = 10.0
"""What was said so long before a client was heard last is said again when it resumes: its last words do not prove that
it had heard ours, and what was to be told a moment later went to a socket that had ended."""
TRANSPORTS_OF_A_JOIN = 2
"""What a client that has not joined yet opens at the most."""
SMALL_ROOM = 50
"""Up to this size every change is told at once."""

log = structlog.get_logger("signaling.room")


class Room:
    """A named place where participants meet."""

    def __init__(self, node: Node, name: str, options: RoomOptions) -> None:
        """Make an empty room."""
        now = time.time()
        self.node = node
        self.options = options
        self.participants: dict[str, Member] = {}
        """By identity."""
        self.tracks: dict[str, Track] = {}
        """Announced tracks, by sid."""
        self.speakers = Speakers()
        self.expected = 0
        """Sessions that were admitted and have not joined yet."""
        self.voices = node.take_group() if options.forward_loudest else 0
        """The engine's group of this room's microphones, of which only the loudest are forwarded; 0: all are."""
        self._info = models.Room(
            sid=identifiers.room_sid(),
            name=name,
            empty_timeout=options.empty_timeout_s,
            departure_timeout=options.departure_timeout_s,
            max_participants=options.max_participants,
            creation_time=int(now),
            creation_time_ms=int(now * 1000),
            enabled_codecs=[models.Codec(mime=mime) for mime in MIME_TYPES.values()],
        )
        self._dynacast = Dynacast()
        self._dynacast_handle: asyncio.Handle | None = None
        self._qualities = Qualities(node.engine)
        self._updates = Updates(lambda: node.clock(), self._tell, node.dropped)
        self._untold: dict[str, Track] = {}
        """Announced tracks of which nobody has heard yet, since updates have to wait; by sid."""
        self._departures: deque[tuple[float, str, bytes]] = deque()
        """When somebody left, the identity, and what others were told: a serialized `ParticipantInfo`, which takes a
        tenth of the memory of the message."""
        self._departures_since = node.clock()
        """Earlier departures are forgotten."""
        self._counts = (0, 0)
        self._counts_stale = False
        self._quality_at = self._room_update_at = self._tended_at = node.clock()
        self._empty_since: float | None = node.clock()
        self._was_joined = False
        self.closed = False
        """It has ended; nobody can join it any more."""
        node.events.emit(RoomStarted(self))

    @property
    def name(self) -> str:
        """The name that tokens carry."""
        return self._info.name

    @property
    def info(self) -> models.Room:
        """What clients are told about the room."""
        self._info.num_participants, self._info.num_publishers = self._count()
        return self._info

    # who is here

    def add(self, participant: Member) -> None:
        """Let somebody in. Who has the same identity is sent away."""
        previous = self.participants.get(participant.identity)
        if previous is not None:
            self.remove(previous, DUPLICATE_IDENTITY)
        self.participants[participant.identity] = participant
        self._counts_stale = True
        self._empty_since = None
        self._was_joined = True

    def remove(
        self,
        participant: Member,
        reason: DisconnectReason,
        action: LeaveRequest.Action = LeaveRequest.DISCONNECT,
    ) -> None:
        """Send somebody away (who may have gone already), free what it held, and tell the others."""
        if participant.removed:
            return
        participant.set_disconnected(reason)
        participant.leave(reason, action)
        if self.participants.get(participant.identity) is participant:
            del self.participants[participant.identity]
            self._counts_stale = True
        try:
            participant.close()
        except Exception:
            log.exception("a participant could not be freed completely", room=self.name, identity=participant.identity)
        self._silence(participant)
        self._qualities.forget(participant.sid)
        if participant.joined:
            self.participant_changed(participant)
            if not participant.hidden:
                self._note_departure(participant.info)
        if not self.participants:
            self._empty_since = self.node.clock()
        participant.let_go()
        if participant.joined:
            self.node.events.emit(ParticipantLeft(self, participant, reason))

    def others(self, participant: Publisher) -> list[Member]:
        """Return everybody else, hidden ones included."""
        return [other for other in self.participants.values() if other is not participant]

    def visible_to(self, participant: Member) -> list[ParticipantInfo]:
        """Return what a participant is told of all others."""
        return [other.info for other in self.others(participant) if other.joined and not other.hidden]

    def departures_since(self, time_s: float) -> list[ParticipantInfo] | None:
        """Return who has left since then, or shortly before (`RETOLD_S`), and is not back.

        A client that knows already looks for somebody who is not there, and finds nothing. None if there were too many
        departures to remember.
        """
        if time_s < self._departures_since:
            return None
        return [
            ParticipantInfo.FromString(info)
            for left_at, identity, info in self._departures
            if left_at >= time_s - RETOLD_S and ((now := self.participants.get(identity)) is None or now.hidden)
        ]

    def is_over(self, now: float) -> bool:
        """Tell whether the room has been empty for long enough."""
        if self._empty_since is None or self.expected:
            return False
        timeout = self.options.departure_timeout_s if self._was_joined else self.options.empty_timeout_s
        return now - self._empty_since >= timeout

    def is_full(self, identity: str) -> bool:
        """Tell whether one more participant with this identity is too many."""
        limit = self.options.max_participants
        return bool(limit) and identity not in self.participants and len(self.participants) + self.expected >= limit

    # what it takes of the engine's tables

    def needs(self) -> Needs:
        """What everybody here has or wants of the engine's tables, and who was admitted and has not joined yet."""
        total, tracks = Needs(), self._track_count()
        for participant in self.participants.values():
            total = total.plus(participant.needs(tracks))
        joining = self.expected
        return total.plus(Needs(transports=TRANSPORTS_OF_A_JOIN * joining, subscriptions=tracks * joining))

    def needs_of_join(self, identity: str, transports: int, takes_all: bool) -> Needs:
        """What one more participant will take, beyond what the one that it replaces gives back."""
        tracks = self._track_count()
        needs = Needs(transports=transports, subscriptions=tracks if takes_all else 0)
        replaced = self.participants.get(identity)
        return needs if replaced is None else needs.beyond(replaced.needs(tracks))

    def listeners(self, publisher: Member) -> int:
        """How many will be subscribed to whatever `publisher` publishes next."""
        return sum(each.subscriptions.takes_all for each in self.participants.values() if each is not publisher)

    def _track_count(self) -> int:
        return sum(participant.track_count for participant in self.participants.values())

    # what happens to participants

    def guard(self, participant: Member, work: Callable[[], None]) -> None:
        """Run `work` for a participant; what it raises ends that participant's stay and nothing else."""
        if participant.removed:
            return
        try:
            work()
        except SessionEnded as exc:
            log.info("session ended", room=self.name, identity=participant.identity, why=exc.text)
            self.remove(participant, exc.reason, exc.action)
        except Exception:
            log.exception("error while serving a participant", room=self.name, identity=participant.identity)
            self.remove(participant, UNKNOWN_REASON, LeaveRequest.RECONNECT)

    def participant_changed(self, participant: Member) -> None:
        """Tell everybody what is new about a participant, soon, and before any SDP that depends on it."""
        self._counts_stale = True
        small = len(self.participants) <= SMALL_ROOM
        self._updates.note(participant, soon=small or participant.hidden or participant.info.is_publisher)

    def before_description(self) -> None:
        """Tell what is to be told now: a session description that depends on it is about to go out."""
        self._updates.before_description()

    def participant_hidden(self, participant: Member) -> None:
        """Somebody whom the others know is hidden from now on: for them it leaves."""
        self._silence(participant)
        self._updates.forget(participant)
        info = ParticipantInfo(sid=participant.sid, identity=participant.identity, state=ParticipantInfo.DISCONNECTED)
        self._note_departure(info)
        self._broadcast(_update([info]), but=(participant,))

    # what happens to tracks

    def track_announced(self, track: Track) -> None:
        """A track is negotiated: tell everybody, and subscribe those who want it when that is said: clients that are
        offered media of somebody they do not know throw it away."""
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
        """A track ends; its publisher tells about itself."""
        self.tracks.pop(track.sid, None)
        self._untold.pop(track.sid, None)
        for other in self.others(track.publisher):
            self.guard(other, partial(other.subscriptions.forget, track))
        self._dynacast.remove(track)
        self.node.events.emit(TrackUnpublished(self, track))

    def engine_tracks_changed(self, track: Track) -> None:
        """A track has another codec now, one more or one less."""
        for other in self.others(track.publisher):
            self.guard(other, partial(other.subscriptions.engine_tracks_changed, track))
        self._schedule_dynacast()

    def subscribe_all(self, participant: Member) -> None:
        """Subscribe a participant to everything that it wants and may have of what is here, and to nothing else."""
        for track in self.tracks.values():
            participant.subscriptions.consider(track)

    def access_changed(self, publisher: Member) -> None:
        """A publisher lets others subscribe to it than before."""
        for track in self._tracks_of(publisher):
            if track.sid not in self._untold:
                self._consider(track)

    def set_demand(self, track: Track, subscriber_sid: str, demand: Demand | None) -> None:
        """Note what a subscriber wants to see; the publisher hears of it in the next turn of the loop."""
        if self._dynacast.set_demand(track, subscriber_sid, demand):
            self._schedule_dynacast()

    def repeat_to(self, participant: Member) -> None:
        """Say again to a resumed client what it may have missed."""
        for track in self._tracks_of(participant):
            self._dynacast.repeat(track)
        participant.subscriptions.repeat()

    def tell_speakers(self, participant: Member, since: float) -> None:
        """Say who speaks to a client that heard no changes since then (node's clock, seconds), and who stopped."""
        if speakers := self.speakers.since(since):
            participant.send(SignalResponse(speakers_changed=SpeakersChanged(speakers=speakers)))

    # time

    def tick(self, now: float, levels: Mapping[str, float]) -> None:
        """Do what is due.

        Args:
            now: the node's clock, in seconds.
            levels: participant sid -> audio level of those who speak here.
        """
        if changes := self.speakers.update(levels, now):
            self._broadcast(SignalResponse(speakers_changed=SpeakersChanged(speakers=changes)))
        self._dynacast.lower(now)
        if now - self._tended_at >= TEND_INTERVAL_S:
            self._tended_at = now
            for participant in tuple(self.participants.values()):
                self.guard(participant, partial(participant.tick, now))
        self._updates.tick(now)
        if self._counts_stale and now - self._room_update_at >= ROOM_UPDATE_INTERVAL_S:
            self._tell_counts(now)
        if now - self._quality_at >= QUALITY_INTERVAL_S:
            self._quality_at = now
            self._report_quality()

    def close(self, reason: DisconnectReason, action: LeaveRequest.Action) -> None:
        """Send everybody away, for good or to come back."""
        for participant in tuple(self.participants.values()):
            self.remove(participant, reason, action)
        if self._dynacast_handle is not None:
            self._dynacast_handle.cancel()
        self._updates.close()
        self.node.give_back_group(self.voices)
        if not self.closed:
            self.closed = True
            self.node.events.emit(RoomFinished(self))

    def _tell(self, told: list[tuple[Member, ParticipantInfo]]) -> None:
        """Send updates about participants: of who is hidden to itself, of all others to everybody."""
        for participant, info in told:
            if participant.hidden:
                participant.send(_update([info]))
        infos = [info for participant, info in told if not participant.hidden]
        for batch in batches(infos):
            self._broadcast(_update(batch))
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
        """Say that somebody speaks no more, before it vanishes: clients do not look for speakers among who has left."""
        if gone := self.speakers.forget(participant.sid, self.node.clock()):
            self._broadcast(SignalResponse(speakers_changed=SpeakersChanged(speakers=gone)))

    def _note_departure(self, info: ParticipantInfo) -> None:
        if len(self._departures) >= MAX_DEPARTURES:
            self._departures_since = self._departures.popleft()[0]
        short = without_texts(info).SerializeToString()
        self._departures.append((self.node.clock(), info.identity, short))

    def _tell_counts(self, now: float) -> None:
        self._counts_stale = False
        counts = self._count()
        if counts != self._counts:
            self._room_update_at, self._counts = now, counts
            self._broadcast(SignalResponse(room_update=RoomUpdate(room=self.info)))

    def _count(self) -> tuple[int, int]:
        visible = [participant for participant in self.participants.values() if not participant.hidden]
        return len(visible), sum(participant.is_publisher for participant in visible)

    def _report_quality(self) -> None:
        """Tell everybody whose connection changed, and newcomers how it is for all."""
        changed, newcomers = self._qualities.measure(self.participants.values())
        if changed:
            self._broadcast(_quality_update(changed), but=newcomers)
        if newcomers:
            everything = Broadcast(_quality_update(self._qualities.infos()))
            for participant in newcomers:
                participant.send(everything)

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
