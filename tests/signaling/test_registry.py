"""Joining a room: what the client is told first, in which order, and what others hear of it."""

import asyncio
from dataclasses import replace

import jwt
import pytest
from livekit.protocol import models, rtc

from sfu.events import TransportConnected
from signaling import registry
from signaling.config.api_keys import hide
from signaling.config.configuration import RoomOptions
from signaling.errors import TooManyRooms
from signaling.http.join import MAX_NAME_LENGTH, JoinError
from tests.signaling.support.call import RECEIVING, Call, FakeConnection, sdp, settle


async def test_join_response_comes_first_and_is_complete(call: Call) -> None:
    client = await call.join("ann")
    joined = client.joined
    assert joined.participant.identity == "ann"
    assert joined.participant.sid.startswith("PA_")
    assert joined.participant.HasField("permission")
    assert joined.room.name == "hall"
    assert joined.room.sid.startswith("RM_")
    assert joined.server_info.version
    assert (joined.ping_interval, joined.ping_timeout) == (5, 15)
    assert not joined.subscriber_primary
    assert joined.fast_publish
    assert not joined.ice_servers
    assert {codec.mime for codec in joined.enabled_publish_codecs} >= {"video/VP8", "video/VP9", "audio/opus"}


async def test_offer_inside_the_join_is_answered_with_its_id(call: Call) -> None:
    client = await call.join("ann", publisher_offer=rtc.SessionDescription(type="offer", sdp=sdp(*RECEIVING), id=7))
    assert client.kinds()[0] == "join"
    assert [answer.id for answer in client.of("answer")] == [7]


async def test_offer_with_id_zero_is_answered_with_id_zero(call: Call) -> None:
    client = await call.join("ann", publisher_offer=rtc.SessionDescription(type="offer", sdp=sdp(*RECEIVING)))
    assert [answer.id for answer in client.of("answer")] == [0]


async def test_tracks_announced_inside_the_join_are_published_before_the_answer(call: Call) -> None:
    request = rtc.AddTrackRequest(cid="mic", type=models.AUDIO, source=models.MICROPHONE)
    offer = sdp({"mid": "0", "kind": "audio", "cid": "mic", "codecs": ["opus"]})
    client = await call.join(
        "ann",
        add_track_requests=(request,),
        publisher_offer=rtc.SessionDescription(type="offer", sdp=offer, id=1),
    )
    kinds = client.kinds()
    assert kinds.index("track_published") < kinds.index("answer")
    sid = client.of("track_published")[0].track.sid
    assert sid.startswith("TR_AM")
    assert dict(client.of("answer")[0].mid_to_track_id) == {"0": sid}


async def test_fresh_token_follows_at_once_and_every_five_minutes(call: Call) -> None:
    client = await call.join("ann", {"can_publish": False})
    await client.connect()
    (token,) = client.of("refresh_token")
    claims = jwt.decode(token, "secret", algorithms=["HS256"])
    assert claims["sub"] == "ann"
    assert claims["video"]["canPublish"] is False
    for _ in range(2):
        await call.pass_time(150)
    assert len(client.of("refresh_token")) == 2


async def test_who_came_with_a_key_that_is_removed_stays_without_fresh_tokens(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    await ann.connect()
    ann.forget()
    call.rooms.renew(replace(call.rooms.node.config, keys=hide({"newkey": "secret"})))
    await call.pass_time(301)
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="new"))
    assert ann.participant.info.metadata == "new"
    assert ann.of("refresh_token") == []
    assert ann.connection.code is None
    assert call.rooms.node.dropped["tokens_of_removed_keys"] > 0


async def test_others_see_joined_then_active_with_growing_versions(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob")
    await bob.connect()
    seen = [info for update in ann.of("update") for info in update.participants if info.identity == "bob"]
    assert [info.state for info in seen] == [models.ParticipantInfo.JOINED, models.ParticipantInfo.ACTIVE]
    assert seen[0].version < seen[1].version
    assert seen[0].name == "name of bob"


async def test_newcomer_is_told_who_is_there_with_their_tracks(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    bob = await call.join("bob")
    (other,) = bob.joined.other_participants
    assert other.identity == "ann"
    assert [track.sid for track in other.tracks] == [sid]
    assert other.is_publisher


async def test_client_facts_are_echoed_to_others(call: Call) -> None:
    ann = await call.join("ann")
    info = models.ClientInfo(
        protocol=18, client_protocol=2, capabilities=[models.ClientInfo.CAP_COMPRESSION_DEFLATE_RAW]
    )
    await call.join("bob", client_info=info)
    seen = ann.of("update")[-1].participants[0]
    assert seen.client_protocol == 2
    assert list(seen.capabilities) == [models.ClientInfo.CAP_COMPRESSION_DEFLATE_RAW]


async def test_hidden_participant_is_told_to_nobody_but_itself(call: Call) -> None:
    ann = await call.join("ann")
    ann.forget()
    spy = await call.join("spy", {"hidden": True})
    await spy.connect()
    bob = await call.join("bob")
    assert all(info.identity != "spy" for update in ann.of("update") for info in update.participants)
    assert [info.identity for info in bob.joined.other_participants] == ["ann"]
    assert [info.identity for info in spy.joined.other_participants] == ["ann"]
    assert bob.joined.room.num_participants == 2
    assert any(info.identity == "spy" for update in spy.of("update") for info in update.participants)


async def test_same_identity_sends_the_older_one_away(call: Call) -> None:
    bob = await call.join("bob")
    first = await call.join("ann")
    second = await call.join("ann")
    leave = first.of("leave")[-1]
    assert leave.reason == models.DUPLICATE_IDENTITY
    assert leave.action == rtc.LeaveRequest.DISCONNECT
    assert first.connection.code == 1000
    assert first.task.done()
    assert first.sid != second.sid
    seen = [info for update in bob.of("update") for info in update.participants if info.identity == "ann"]
    assert [(info.sid, info.state) for info in seen[-2:]] == [
        (first.sid, models.ParticipantInfo.DISCONNECTED),
        (second.sid, models.ParticipantInfo.JOINED),
    ]
    assert seen[-2].disconnect_reason == models.DUPLICATE_IDENTITY


async def test_leaving_is_told_to_others_and_frees_everything(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob")
    await ann.publish("mic", "audio")
    await bob.renegotiate()
    await ann.send(leave=rtc.LeaveRequest())
    assert ann.connection.code == 1000
    gone = bob.of("update")[-1].participants[-1]
    assert gone.state == models.ParticipantInfo.DISCONNECTED
    assert gone.disconnect_reason == models.CLIENT_INITIATED
    assert not gone.tracks
    assert call.engine.usage() == {"transports": 1, "tracks": 0, "subscriptions": 0}


async def test_two_hundred_joins_and_leaves_leave_nothing_behind(call: Call) -> None:
    bob = await call.join("bob")
    before = call.engine.usage()
    tasks = len(asyncio.all_tasks())
    for _ in range(200):
        ann = await call.join("ann")
        await ann.publish("cam", "video")
        await bob.renegotiate()
        await ann.send(leave=rtc.LeaveRequest())
    await bob.renegotiate()
    node = call.rooms.node
    assert call.engine.usage() == before
    assert len(asyncio.all_tasks()) == tasks
    assert len(node.participants) == 1
    assert not node.tracks
    assert not node.subscribers
    assert not call.room.tracks


async def test_dual_client_gets_our_offer_after_the_join(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    client = await call.join("bob", single_pc=False)
    assert client.joined.subscriber_primary
    offer = client.of("offer")[0]
    assert client.kinds().index("join") < client.kinds().index("offer")
    assert offer.id == 1
    assert sid in offer.mid_to_track_id.values()


async def test_dual_client_that_may_not_subscribe_has_its_publisher_as_primary(call: Call) -> None:
    client = await call.join("bob", {"can_subscribe": False}, single_pc=False)
    assert not client.joined.subscriber_primary


async def test_room_ends_after_the_last_departure(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(leave=rtc.LeaveRequest())
    await call.pass_time(19)
    assert "hall" in call.rooms.rooms
    await call.pass_time(2)
    assert "hall" not in call.rooms.rooms


async def test_room_whose_only_upgrade_failed_ends_after_the_empty_timeout(call: Call) -> None:
    session = call.rooms.admit(call.parameters("ann"))
    await call.pass_time(400)
    assert "hall" in call.rooms.rooms
    session.abandon()
    await call.pass_time(1)
    assert "hall" not in call.rooms.rooms


async def test_full_room_refuses_newcomers_but_not_a_returning_identity(call: Call) -> None:
    call.rooms._options = RoomOptions(max_participants=1)
    await call.join("ann")
    with pytest.raises(JoinError) as refused:
        call.rooms.admit(call.parameters("bob"))
    assert refused.value.status == 503
    with pytest.raises(JoinError):
        call.rooms.validate(call.parameters("bob"))
    again = await call.join("ann")
    assert again.joined.participant.identity == "ann"


async def test_full_engine_ends_the_join_with_a_reason(call: Call) -> None:
    call.engine.capacity = 0
    client = await call.join("ann")
    assert client.of("leave")[0].reason == models.JOIN_FAILURE
    assert client.task.done()


async def test_client_without_media_after_a_minute_is_sent_away(call: Call) -> None:
    client = await call.join("ann")
    await call.pass_time(59)
    assert not client.of("leave")
    await call.pass_time(2)
    assert client.of("leave")[0].reason == models.JOIN_FAILURE


async def test_validate_creates_nothing(call: Call) -> None:
    call.rooms.validate(call.parameters("ann"))
    assert not call.rooms.rooms
    assert call.engine.usage()["transports"] == 0


async def test_stop_says_that_the_server_shuts_down(call: Call) -> None:
    client = await call.join("ann")
    await call.rooms.stop()
    leave = client.of("leave")[0]
    assert (leave.reason, leave.action) == (models.SERVER_SHUTDOWN, rtc.LeaveRequest.RECONNECT)


async def test_counts_of_the_room_are_told_when_they_change(call: Call) -> None:
    ann = await call.join("ann")
    await call.join("bob")
    await call.pass_time(5)
    await call.pass_time(5)
    updates = ann.of("room_update")
    assert [update.room.num_participants for update in updates] == [2]


async def test_a_change_of_the_counts_is_told_soon_and_at_most_every_five_seconds(call: Call) -> None:
    ann = await call.join("ann")
    await call.pass_time(5)
    await call.pass_time(20)
    ann.forget()
    bob = await call.join("bob")
    await call.pass_time(0.4)
    assert [update.room.num_participants for update in ann.of("room_update")] == [2]
    await bob.publish("mic", "audio")
    await call.pass_time(4)
    assert len(ann.of("room_update")) == 1
    await call.pass_time(1)
    assert [update.room.num_publishers for update in ann.of("room_update")] == [0, 1]
    await bob.send(leave=rtc.LeaveRequest())
    await call.pass_time(5)
    assert [update.room.num_participants for update in ann.of("room_update")] == [2, 2, 1]


async def test_a_room_without_changes_is_not_counted(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await call.pass_time(5)
    counted: list[float] = []

    def count() -> tuple[int, int]:
        counted.append(call.now)
        return (1, 0)

    monkeypatch.setattr(call.room._headcount, "count", count)
    for _ in range(50):
        await call.pass_time(0.4)
    assert not counted
    ann.participant.changed()
    await call.pass_time(0.4)
    await call.pass_time(0.4)
    assert len(counted) == 1, "a change of something else is looked at once"


async def test_event_pump_brings_engine_events_to_participants(call: Call) -> None:
    await call.rooms.start()
    ann = await call.join("ann")
    call.engine.emit(TransportConnected(ann.transport))
    await settle()
    assert ann.participant.state == models.ParticipantInfo.ACTIVE


async def test_connection_that_ends_during_the_upgrade_is_forgotten(call: Call) -> None:
    session = call.rooms.admit(call.parameters("ann"))
    connection = FakeConnection()
    await connection.close()
    await session.run(connection)  # type: ignore[arg-type]
    assert not call.room.participants
    assert call.engine.usage()["transports"] == 0


async def test_a_room_can_be_made_and_listed_before_anybody_joins(call: Call) -> None:
    room = call.rooms.create("hall", RoomOptions(max_participants=1, empty_timeout_s=60))
    assert call.rooms.create("hall") is room
    call.rooms.create("attic")
    assert [info.name for info in call.rooms.list()] == ["hall", "attic"]
    listed = call.rooms.list(["hall", "cellar"])
    ann = await call.join("ann")
    assert ann.joined.room.sid == room.info.sid
    (described,) = listed
    assert (described.sid, described.max_participants) == (room.info.sid, 1)
    assert described.num_participants == 1, "a description is of the moment when it is asked for"
    with pytest.raises(JoinError):
        await call.join("bob")


async def test_a_room_without_a_join_ends_after_its_empty_timeout(call: Call) -> None:
    call.rooms.create("hall", RoomOptions(empty_timeout_s=60))
    await call.pass_time(59)
    assert [*call.rooms.list()]
    await call.pass_time(1)
    assert not [*call.rooms.list()]


async def test_a_closed_room_sends_everybody_away_for_good(call: Call) -> None:
    ann = await call.join("ann")
    assert not call.rooms.close("attic")
    assert call.rooms.close("hall")
    await settle()
    (leave,) = ann.of("leave")
    assert (leave.reason, leave.action) == (models.ROOM_DELETED, rtc.LeaveRequest.DISCONNECT)
    assert ann.connection.ended
    assert not [*call.rooms.list()]
    assert not call.rooms.node.participants
    again = await call.join("ann")
    assert again.joined.room.sid != ann.joined.room.sid


async def test_who_was_admitted_to_a_room_that_is_closed_does_not_join_it(call: Call) -> None:
    session = call.rooms.admit(call.parameters("ann"))
    assert call.rooms.close("hall")
    connection = FakeConnection()
    await session.run(connection)  # type: ignore[arg-type]
    (response,) = connection.sent
    assert (response.leave.reason, response.leave.action) == (models.ROOM_DELETED, rtc.LeaveRequest.DISCONNECT)
    assert connection.ended
    assert not call.rooms.node.participants


async def test_rooms_are_bounded_and_their_names_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_ROOMS", 1)
    with pytest.raises(ValueError, match="name"):
        call.rooms.create("n" * (MAX_NAME_LENGTH + 1))
    call.rooms.create("hall")
    with pytest.raises(TooManyRooms):
        call.rooms.create("attic")
    assert call.rooms.create("hall")
