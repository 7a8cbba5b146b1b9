"""signaling/webhooks/messages.py: which events of rooms are told, when, and with what in them."""

from collections.abc import Callable

import pytest
from livekit.protocol import models, rtc
from livekit.protocol.webhook import WebhookEvent

from signaling.rooms.events import RoomEvent
from signaling.webhooks.messages import Messages
from tests.signaling.support.call import Call

Heard = Callable[[], list[WebhookEvent]]


@pytest.fixture
def heard(call: Call) -> Heard:
    """All messages so far."""
    messages, told = Messages(), list[WebhookEvent]()

    def note(event: RoomEvent) -> None:
        told.extend(messages.of(event, full_room=False))

    call.rooms.node.events.subscribe(note)
    return lambda: told


def names(told: list[WebhookEvent]) -> list[str]:
    return [message.event for message in told]


async def test_a_visit_is_told_from_the_rooms_start_to_its_end(call: Call, heard: Heard) -> None:
    ann = await call.join("ann")
    await ann.connect()
    sid = await ann.publish("mic", "audio")
    await ann.send(leave=rtc.LeaveRequest())
    await call.pass_time(call.room.options.departure_timeout_s)
    assert names(heard()) == [
        "room_started",
        "participant_joined",
        "track_published",
        "track_unpublished",
        "participant_left",
        "room_finished",
    ]
    started, joined, published, unpublished, left, finished = heard()
    assert len({message.id for message in heard()}) == 6
    assert all(message.id.startswith("EV_") and message.created_at > 1_700_000_000 for message in heard())
    assert {message.room.sid for message in heard()} == {ann.joined.room.sid}
    assert [message.room.num_participants for message in (started, joined, left, finished)] == [0, 1, 0, 0]
    assert started.room.empty_timeout == 300
    assert (joined.participant.sid, joined.participant.state) == (ann.sid, models.ParticipantInfo.ACTIVE)
    assert (left.participant.sid, left.participant.state) == (ann.sid, models.ParticipantInfo.DISCONNECTED)
    assert left.participant.disconnect_reason == models.CLIENT_INITIATED
    assert left.created_at >= left.participant.joined_at == joined.participant.joined_at > 0
    assert published.track.sid == unpublished.track.sid == sid
    assert finished.room_end_reason == models.ROOM_END_IDLE_TIMEOUT


async def test_messages_about_tracks_name_room_and_participant_only(call: Call, heard: Heard) -> None:
    ann = await call.join("ann")
    await ann.connect()
    sid = await ann.publish("cam", "video")
    published = heard()[-1]
    assert published.room == models.Room(sid=ann.joined.room.sid, name="hall")
    assert published.participant == models.ParticipantInfo(sid=ann.sid, identity="ann")
    assert (published.track.sid, published.track.source, published.track.height) == (sid, models.CAMERA, 720)


async def test_they_describe_the_whole_room_if_that_is_wanted(call: Call) -> None:
    messages, told = Messages(), list[WebhookEvent]()
    call.rooms.node.events.subscribe(lambda event: told.extend(messages.of(event, full_room=True)))
    ann = await call.join("ann")
    await ann.connect()
    await ann.publish("mic", "audio")
    assert told[-1].event == "track_published"
    assert told[-1].room.enabled_codecs
    assert told[-1].room.num_participants == 1
    assert told[-1].participant == models.ParticipantInfo(sid=ann.sid, identity="ann")


async def test_who_never_became_active_has_aborted_and_its_tracks_are_not_told(call: Call, heard: Heard) -> None:
    ann = await call.join("ann")
    await ann.publish("mic", "audio")
    await ann.send(leave=rtc.LeaveRequest())
    assert names(heard()) == ["room_started", "participant_connection_aborted"]
    assert heard()[-1].participant.identity == "ann"


async def test_tracks_that_were_published_before_are_told_after_the_join(call: Call, heard: Heard) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    assert names(heard()) == ["room_started"]
    await ann.connect()
    assert names(heard())[1:] == ["participant_joined", "track_published"]
    assert heard()[-1].track.sid == sid


async def test_of_a_replaced_session_the_old_one_leaves_before_the_new_one_joins(call: Call, heard: Heard) -> None:
    old = await call.join("ann")
    await old.connect()
    new = await call.join("ann")
    await new.connect()
    _, joined, left, again = heard()
    assert names(heard())[1:] == ["participant_joined", "participant_left", "participant_joined"]
    assert [message.participant.sid for message in (joined, left, again)] == [old.sid, old.sid, new.sid]
    assert [message.room.num_participants for message in (joined, left, again)] == [1, 0, 1]
    assert left.participant.disconnect_reason == models.DUPLICATE_IDENTITY


async def test_a_deleted_room_says_so(call: Call, heard: Heard) -> None:
    ann = await call.join("ann")
    await ann.connect()
    call.rooms.close("hall")
    assert names(heard())[-2:] == ["participant_left", "room_finished"]
    assert heard()[-2].participant.disconnect_reason == models.ROOM_DELETED
    assert heard()[-1].room_end_reason == models.ROOM_END_API_DELETE


async def test_what_is_remembered_ends_with_the_visit(call: Call) -> None:
    messages = Messages()
    call.rooms.node.events.subscribe(messages.note)
    for _ in range(3):
        ann = await call.join("ann")
        await ann.connect()
        assert messages._here == {ann.sid}
    await ann.send(leave=rtc.LeaveRequest())
    assert messages._here == set()


async def test_an_event_shows_its_own_moment_however_late_it_is_read(call: Call, heard: Heard) -> None:
    ann = await call.join("ann")
    await ann.connect()
    bob = await call.join("bob")
    await bob.connect()
    await ann.send(leave=rtc.LeaveRequest())
    counts = [(message.event, message.room.num_participants) for message in heard()[1:]]
    assert counts == [("participant_joined", 1), ("participant_joined", 2), ("participant_left", 1)]
