"""signaling/rooms/events.py and room_log.py: what happens in rooms, for whoever listens, and as lines of the log."""

from collections import Counter
from typing import cast

import pytest
from livekit.protocol import models, rtc
from structlog.testing import capture_logs

from signaling.participants.participant import Participant
from signaling.rooms import events, room_log
from signaling.rooms.events import (
    EventRoom,
    Events,
    ParticipantActive,
    ParticipantJoined,
    ParticipantLeft,
    RoomEvent,
    RoomFinished,
    RoomStarted,
    TrackPublished,
    TrackUnpublished,
)
from tests.signaling.support.call import Call, settle

ROOM = cast("EventRoom", None)


def story(told: list[RoomEvent]) -> list[tuple[str, str]]:
    """(kind of event, whom it is about) of each."""
    lines = []
    for event in told:
        match event:
            case ParticipantJoined() | ParticipantActive() | ParticipantLeft():
                about = event.participant.identity
            case TrackPublished() | TrackUnpublished():
                about = event.track.sid
            case _:
                about = event.room.name
        lines.append((type(event).__name__, about))
    return lines


async def test_a_room_tells_its_whole_life_in_order(call: Call) -> None:
    told: list[RoomEvent] = []
    call.rooms.node.events.subscribe(told.append)
    ann = await call.join("ann")
    await ann.connect()
    sid = await ann.publish("mic", "audio")
    await ann.send(leave=rtc.LeaveRequest())
    await call.pass_time(call.room.options.departure_timeout_s)
    assert story(told) == [
        ("RoomStarted", "hall"),
        ("ParticipantJoined", "ann"),
        ("ParticipantActive", "ann"),
        ("TrackPublished", sid),
        ("TrackUnpublished", sid),
        ("ParticipantLeft", "ann"),
        ("RoomFinished", "hall"),
    ]
    left = told[5]
    assert isinstance(left, ParticipantLeft)
    assert left.reason == models.CLIENT_INITIATED
    assert left.participant.info.state == models.ParticipantInfo.DISCONNECTED


async def test_an_event_comes_when_what_it_says_is_true(call: Call) -> None:
    states: list[models.ParticipantInfo.State] = []
    published: list[bool] = []

    def note(event: RoomEvent) -> None:
        match event:
            case ParticipantJoined() | ParticipantActive() | ParticipantLeft():
                states.append(event.participant.info.state)
            case TrackPublished():
                published.append(event.track.sid in call.room.tracks)

    call.rooms.node.events.subscribe(note)
    ann = await call.join("ann")
    await ann.connect()
    await ann.publish("mic", "audio")
    await ann.send(leave=rtc.LeaveRequest())
    info = models.ParticipantInfo
    assert states == [info.JOINED, info.ACTIVE, info.DISCONNECTED]
    assert published == [True]


async def test_an_unpublished_track_is_told_while_its_publisher_stays(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    told: list[RoomEvent] = []
    call.rooms.node.events.subscribe(told.append)
    ann.sections = [section for section in ann.sections if section["mid"] != "mic"]
    await ann.offer(id=2)
    assert story(told) == [("TrackUnpublished", sid)]


async def test_a_failed_join_is_not_told_as_one(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[RoomEvent] = []
    call.rooms.node.events.subscribe(told.append)
    monkeypatch.setattr(Participant, "set_joined", None)
    await call.join("ann")
    assert not call.room.participants
    assert story(told) == [("RoomStarted", "hall")]


async def test_a_listener_that_fails_costs_nobody(call: Call) -> None:
    def fail(event: RoomEvent) -> None:
        raise RuntimeError("a bug")

    told: list[RoomEvent] = []
    call.rooms.node.events.subscribe(fail)
    call.rooms.node.events.subscribe(told.append)
    ann = await call.join("ann")
    await ann.publish("mic", "audio")
    assert [kind for kind, _ in story(told)] == ["RoomStarted", "ParticipantJoined", "TrackPublished"]
    assert call.room.participants.keys() == {"ann"}


def test_what_a_listener_causes_is_told_after_its_cause() -> None:
    bus = Events(Counter())
    told: list[RoomEvent] = []

    def finish(event: RoomEvent) -> None:
        if isinstance(event, RoomStarted):
            bus.emit(RoomFinished(ROOM, models.ROOM_DELETED))

    bus.subscribe(finish)
    bus.subscribe(told.append)
    bus.emit(RoomStarted(ROOM))
    assert [type(event) for event in told] == [RoomStarted, RoomFinished]


def test_a_chain_of_events_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_WAITING_EVENTS", 3)
    dropped: Counter[str] = Counter()
    bus = Events(dropped)
    told: list[RoomEvent] = []

    def flood(event: RoomEvent) -> None:
        if isinstance(event, RoomStarted):
            for _ in range(5):
                bus.emit(RoomFinished(ROOM, models.ROOM_DELETED))

    bus.subscribe(flood)
    bus.subscribe(told.append)
    bus.emit(RoomStarted(ROOM))
    assert [type(event) for event in told] == [RoomStarted] + [RoomFinished] * 3
    assert dropped == {"room_events": 2}
    bus.emit(RoomFinished(ROOM, models.ROOM_DELETED))
    assert len(told) == 5


async def test_the_log_names_clients_and_tracks(call: Call) -> None:
    info = models.ClientInfo(
        sdk=models.ClientInfo.JS, version="2.15.4", browser="Firefox", os="v" * 1000, protocol=16, network="wifi"
    )
    with capture_logs() as lines:
        ann = await call.join("ann", client_info=info)
        sid = await ann.publish("mic", "audio", start=False)
        await ann.send(leave=rtc.LeaveRequest())
        await settle()
    rooms = {line["event"]: line for line in lines if line.get("room") == "hall"}
    joined = rooms["participant joined"]
    assert (joined["identity"], joined["sdk"], joined["version"]) == ("ann", "js", "2.15.4")
    assert (joined["browser"], joined["protocol"], joined["single_pc"]) == ("Firefox", 16, True)
    assert len(joined["os"]) == room_log.MAX_LOGGED_CHARACTERS
    published = rooms["track published"]
    assert (published["identity"], published["track"]) == ("ann", sid)
    assert (published["kind"], published["source"], published["codec"]) == ("audio", "microphone", "audio/opus")
    assert rooms["track ended"]["track"] == sid
    assert rooms["participant left"]["reason"] == "CLIENT_INITIATED"


async def test_the_log_takes_sdks_and_sources_that_nobody_knows(call: Call) -> None:
    unknown = models.ClientInfo(sdk=cast("models.ClientInfo.SDK", 4711))
    source = cast("models.TrackSource", 4711)
    with capture_logs() as lines:
        ann = await call.join("ann", client_info=unknown)
        await ann.publish("mic", "audio", source=source)
    told = {line["event"]: line for line in lines}
    assert told["participant joined"]["sdk"] == "4711"
    assert told["track published"]["source"] == "4711"
    assert "a listener failed" not in told
