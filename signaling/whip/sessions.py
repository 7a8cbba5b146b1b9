"""The sessions of WHIP and WHEP: participants that joined by one HTTP request and are known by a secret name.

A session ends with its participant, and the participant with its session: when the client says so, when its media did
not connect or is lost, when somebody with the same identity joins, or when the server API removes it. Everything else
about the participant is as with one that has a WebSocket.
"""

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from livekit.protocol.models import CLIENT_INITIATED, JOIN_FAILURE, TrackSource
from livekit.protocol.rtc import RequestResponse, UpdateSubscription

from signaling.errors import RequestRefused
from signaling.http.join import JoinParameters
from signaling.participants.guarded import Result, WorkFailed, perform
from signaling.participants.offered_once import OfferedOnce
from signaling.participants.participant import Participant
from signaling.participants.session import Session as Admission
from signaling.rooms.events import ParticipantLeft, RoomEvent
from signaling.rooms.node import Node
from signaling.rooms.tracks import barred_codecs
from signaling.sdp.parsing import SdpError, parse
from signaling.whip.fragments import Fragment, entity_tag, write_fragment
from signaling.whip.offers import Offer, Publication, announcement, codecs_of
from signaling.whip.playing import played_answer
from signaling.whip.problems import Problem
from signaling.whip.showing import Newest, PlayRequest, Stage, newest_tracks, shown_participant

MAX_SESSIONS_OF_AN_IDENTITY = 32
"""Sessions of one API key and identity at a time, each in another room. In one room it has one at most."""
NAME_BYTES = 24
"""Random bytes in the name of a session, which nobody can guess."""

Found = dict[tuple[str, TrackSource], Newest]
"""(room sid, source of the picture) -> everybody's tracks, so that one walk over them serves all players."""

log = structlog.get_logger("signaling.whip")


class Registry(Protocol):
    """The part of `signaling.registry.Rooms` that sessions use."""

    @property
    def node(self) -> Node:
        """What all rooms share."""

    def admit(self, join: JoinParameters) -> Admission:
        """Admit a participant.

        Raises:
            JoinError: the join is refused.
        """


@dataclass(slots=True)
class Session:
    """One publisher or player."""

    name: str
    """The secret name, under which the client finds its session again."""
    participant: Participant
    offer: Offer
    """The client's offer, with its newest ICE credentials."""
    request: PlayRequest | None
    """What a player is shown; None: the client publishes."""
    tag: str = ""
    """The entity-tag of its ICE session."""
    shown: tuple[str, ...] = ()
    """The sids of the tracks that a player is shown."""
    is_due: bool = False
    """Whether it waits for its turn to be shown what should be shown now."""

    @property
    def follows(self) -> bool:
        """Whether it is shown whoever speaks."""
        return self.request is not None and not self.request.participant

    def is_of(self, join: JoinParameters, plays: bool) -> bool:
        """Tell whether a join's token may act on this session."""
        same = self.participant.room_name == join.room and self.participant.who == join.claims.who
        return same and (self.request is not None) is plays


class Sessions:
    """All sessions of this process."""

    def __init__(self, rooms: Registry) -> None:
        """Start without sessions."""
        self._rooms = rooms
        self._node = rooms.node
        self._by_name: dict[str, Session] = {}
        self._by_sid: dict[str, Session] = {}
        """Participant sid -> its session."""
        self._of: Counter[tuple[str, str]] = Counter()
        """API key and identity -> their sessions."""
        self._stages: dict[tuple[str, TrackSource], Stage] = {}
        """(room sid, source of the picture) -> who is shown. Those without a player are forgotten at the next tick."""
        rooms.node.events.subscribe(self._note)

    def find(self, name: str, join: JoinParameters, *, plays: bool) -> Session:
        """Return a session on which the bearer of a join's token may act.

        Raises:
            Problem: 404: there is none of this name, or it is somebody else's.
        """
        session = self._by_name.get(name)
        if session is None or not session.is_of(join, plays):
            raise Problem(404, "there is no such session")
        return session

    async def publish(self, join: JoinParameters, offer: Offer, what: Publication) -> tuple[Session, str]:
        """Let a client join that publishes what it offers; return its session, and the answer.

        Raises:
            JoinError: the join is refused.
            Problem: 403: the token does not allow to publish; 422: the room does not allow its codecs; 429, 503: the
                identity has too many sessions, the server is full.
        """
        if not join.video.can_publish:
            raise Problem(403, "the token does not allow publishing")

        def prepare(participant: Participant) -> None:
            barred = barred_codecs(participant.room.options.enabled_codecs)
            for section in offer.media:
                if not codecs_of(section) - barred:
                    raise Problem(422, f'the room allows no codec of m-section "{section.mid}"')
                participant.publishing.add_track(announcement(section, what))
            if len(participant.publishing.pending) != len(offer.media):
                raise Problem(422, "two m-sections have a track of the same id")

        session, answer = await self._open(join, offer, None, prepare)
        if len(session.participant.publishing.tracks) != len(offer.media):
            # The engine had promised rows for them. Whatever else is wrong with an offer was found before the join.
            session.participant.room.remove(session.participant, JOIN_FAILURE)
            raise Problem(503, "the server has no room for what the client publishes")
        return session, answer

    async def play(self, join: JoinParameters, offer: Offer, request: PlayRequest) -> tuple[Session, str]:
        """Let a client join that is sent what it asks for; return its session, and the answer.

        Raises:
            JoinError: the join is refused.
            Problem: 403: the token does not allow to subscribe; 429: the identity has too many sessions.
        """
        if not join.video.can_subscribe:
            raise Problem(403, "the token does not allow subscribing")
        session, answer = await self._open(join, offer, request, lambda participant: None)
        return session, played_answer(answer, session.participant.public_sid)

    def restart(self, session: Session, fragment: Fragment) -> str | None:
        """Restart ICE if a fragment has new credentials; return our fragment, None if nothing had to be done.

        Raises:
            Problem: 400: the credentials cannot be used; the old ones go on. 500: the session failed, and has ended.
        """
        now = session.offer.transport
        if not fragment.ufrag or (fragment.ufrag, fragment.password) == (now.ufrag, now.password):
            return None
        offer = session.offer.restarted(fragment.ufrag, fragment.password)
        answer = parse(_guarded(session.participant, lambda: _accept(session.participant, offer)))
        session.offer, session.tag = offer, entity_tag(answer)
        return write_fragment(answer)

    def end(self, session: Session) -> None:
        """End a session on its client's request."""
        session.participant.room.remove(session.participant, CLIENT_INITIATED)

    def tick(self, now: float) -> None:
        """Show players whoever speaks now, one after the other. `now` is the node's clock, in seconds."""
        players = [each for each in self._by_name.values() if each.request is not None]
        followed = {_place(each): each.participant.room for each in players if each.follows}
        self._stages = {place: self._stages.get(place) or Stage() for place in followed}
        for place, room in followed.items():
            self._stages[place].renew(room, place[1], now)
        found: Found = {}
        for session in players:
            if not session.is_due:
                session.is_due = True
                self._node.due_work.put(session.participant.room, partial(self._renew, session, found))

    async def _open(
        self, join: JoinParameters, offer: Offer, request: PlayRequest | None, prepare: Callable[[Participant], None]
    ) -> tuple[Session, str]:
        participant = await self._enter(join, prepare)
        session = Session(secrets.token_urlsafe(NAME_BYTES), participant, offer, request)
        began = self._node.clock()
        try:
            participant.room.add(participant)
            self._by_name[session.name] = self._by_sid[participant.sid] = session
            try:
                answer = _guarded(participant, lambda: self._begin(session))
            except Problem:
                participant.room.remove(participant, JOIN_FAILURE)
                raise
            session.tag = entity_tag(parse(answer))
        finally:
            self._node.entrances.charge(participant.who, self._node.clock() - began)
        return session, answer

    async def _enter(self, join: JoinParameters, prepare: Callable[[Participant], None]) -> Participant:
        """Make a participant that may have a session more. It is counted until it leaves."""
        who = join.claims.who
        if self._of[who] >= MAX_SESSIONS_OF_AN_IDENTITY and not self._replaces(join):
            self._node.dropped["whip_sessions_beyond_limit"] += 1
            raise Problem(429, f"more than {MAX_SESSIONS_OF_AN_IDENTITY} sessions of one identity")
        self._of[who] += 1
        try:
            participant = await self._rooms.admit(join).enter()
            try:
                prepare(participant)
            except BaseException:
                participant.room.remove(participant, JOIN_FAILURE)
                raise
        except RequestRefused as error:
            self._forget_one(who)
            raise _refusal(error) from error
        except BaseException:
            self._forget_one(who)
            raise
        return participant

    def _forget_one(self, who: tuple[str, str]) -> None:
        self._of[who] -= 1
        if not self._of[who]:
            del self._of[who]

    def _replaces(self, join: JoinParameters) -> bool:
        """Tell whether a join ends another session of the same identity, in the same room."""
        sessions = self._by_name.values()
        return any(each.is_of(join, plays) for each in sessions for plays in (True, False))

    def _begin(self, session: Session) -> str:
        participant = session.participant
        participant.set_joined()
        if session.request is not None:
            self._show(session, {})
        return _accept(participant, session.offer)

    def _renew(self, session: Session, found: Found) -> None:
        session.is_due = False
        session.participant.room.guard(session.participant, partial(self._show, session, found))

    def _show(self, session: Session, found: Found) -> None:
        """Let a player have the tracks that it should be shown now, and no others.

        `found` is what was found for other players at this moment. It is added to.
        """
        room, subscriptions = session.participant.room, session.participant.subscriptions
        wanted = self._wanted(session, found)
        if wanted == session.shown:
            return
        unwanted = [sid for sid in session.shown if sid not in wanted and sid in room.tracks]
        missing = [sid for sid in wanted if sid not in session.shown]
        try:
            subscriptions.update(UpdateSubscription(track_sids=unwanted, subscribe=False))
            subscriptions.update(UpdateSubscription(track_sids=missing, subscribe=True))
        except RequestRefused as error:
            # It is tried again at the next tick.
            log.debug("a player is not sent what it asks for", room=room.name, reason=error.text)
        else:
            session.shown = wanted

    def _wanted(self, session: Session, found: Found) -> tuple[str, ...]:
        room, request, place = session.participant.room, session.request, _place(session)
        assert request is not None, "a publisher is shown nothing"
        if place not in found:
            found[place] = newest_tracks(room, request.source)
        sid = shown_participant(room, request.participant) if request.participant else self._stage(session).sid
        return found[place].get(sid, ())

    def _stage(self, session: Session) -> Stage:
        place = _place(session)
        if place not in self._stages:
            self._stages[place] = Stage()
            self._stages[place].renew(session.participant.room, place[1], self._node.clock())
        return self._stages[place]

    def _note(self, event: RoomEvent) -> None:
        if not isinstance(event, ParticipantLeft):
            return
        session = self._by_sid.pop(event.participant.sid, None)
        if session is not None:
            del self._by_name[session.name]
            self._forget_one(session.participant.who)


def _place(session: Session) -> tuple[str, TrackSource]:
    """Return the room, and the source of the picture, for which a player shares its stage with others."""
    assert session.request is not None, "a publisher is shown nothing"
    return session.participant.room.info.sid, session.request.source


def _accept(participant: Participant, offer: Offer) -> str:
    assert isinstance(participant.renegotiation, OfferedOnce)
    return participant.renegotiation.accept(offer.sdp)


def _guarded(participant: Participant, work: Callable[[], Result]) -> Result:
    """Do something for a participant. An exception removes it and nothing else, as with requests on a WebSocket.

    Raises:
        Problem: 400: the SDP cannot be used, and nothing was changed. 500: the work failed.
    """
    try:
        return perform(participant, work, SdpError)
    except SdpError as error:
        raise Problem(400, str(error)) from error
    except WorkFailed as error:
        raise Problem(500, "the session failed and has ended") from error


def _refusal(error: RequestRefused) -> Problem:
    status = {RequestResponse.NOT_ALLOWED: 403, RequestResponse.LIMIT_EXCEEDED: 503}
    return Problem(status.get(error.reason, 422), error.text)
