"""Data tracks and data blobs: who publishes, who is sent what under which handle, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from livekit.protocol import models, room, rtc

from sfu.parameters import Channel
from signaling import limits
from signaling.api.room_service import RoomService
from signaling.config.options import MAX_METADATA_BYTES
from signaling.limits import MAX_DATA_TRACKS, UPDATE_BURST_BYTES
from signaling.participants.data_tracks import TOLD_BYTES, DataTracks
from signaling.rooms.tracks import DataTrack
from tests.signaling.support.call import Call, Client, settle

PUBLISHER_HANDLE = 7


def packet(handle: int = PUBLISHER_HANDLE, payload: bytes = b"frame") -> bytes:
    return b"\x18\x00" + handle.to_bytes(2) + b"\x00\x01\x00\x02\x00\x00\x00\x03" + payload


async def publish(client: Client, handle: int = PUBLISHER_HANDLE, name: str = "lidar", **fields: Any) -> str:
    request = rtc.PublishDataTrackRequest(pub_handle=handle, name=name, **fields)
    await client.send(publish_data_track_request=request)
    sid: str = client.of("publish_data_track_response")[-1].info.sid
    return sid


async def choose(client: Client, sid: str, subscribe: bool = True) -> None:
    update = rtc.UpdateDataSubscription.Update(track_sid=sid, subscribe=subscribe)
    await client.send(update_data_subscription=rtc.UpdateDataSubscription(updates=[update]))


def handles(client: Client) -> dict[str, int]:
    """The handle of each track, by its sid, as the client was told last."""
    told = client.of("data_track_subscriber_handles")
    return {entry.track_sid: handle for handle, entry in told[-1].sub_handles.items()} if told else {}


async def connected(call: Call) -> tuple[Client, Client, str]:
    """ann, bob, whose media flow, and the sid of a track of ann's that bob has chosen."""
    ann, bob = await call.join("ann"), await call.join("bob")
    for client in (ann, bob):
        await client.connect()
    sid = await publish(ann)
    await choose(bob, sid)
    return ann, bob, sid


def refusals(client: Client) -> list[int]:
    return [response.reason for response in client.of("request_response")]


async def test_packets_go_to_subscribers_under_the_handle_that_they_were_told(call: Call) -> None:
    ann, bob, cleo, dan = [await call.join(name) for name in ("ann", "bob", "cleo", "dan")]
    encoding = models.DataTrackFrameEncoding(custom="points")
    sid = await publish(ann, frame_encoding=encoding)
    assert sid.startswith("DTR_")
    (told,) = [info for info in bob.of("update")[-1].participants if info.identity == "ann"]
    (track,) = told.data_tracks
    assert (track.sid, track.name, track.pub_handle, track.frame_encoding) == (sid, "lidar", 7, encoding)
    assert told.is_publisher
    await ann.send_data(packet(), Channel.DATA_TRACK)
    assert call.engine.sent == [], "nobody has subscribed"
    await choose(bob, sid)
    await choose(cleo, sid)
    (entry,) = bob.of("data_track_subscriber_handles")[-1].sub_handles.values()
    assert (entry.publisher_identity, entry.publisher_sid, entry.track_sid) == ("ann", ann.sid, sid)
    await ann.send_data(packet(), Channel.DATA_TRACK)
    ((transports, channel, sent),) = call.engine.sent
    assert set(transports) == {bob.participant.data_transport, cleo.participant.data_transport}
    assert (channel, sent) == (Channel.DATA_TRACK, packet(handles(bob)[sid]))
    assert handles(cleo) == handles(bob)
    assert handles(dan) == {}


async def test_each_track_of_a_room_has_another_handle(call: Call) -> None:
    ann, bob, cleo = [await call.join(name) for name in ("ann", "bob", "cleo")]
    first, second = await publish(ann), await publish(bob)
    for sid in (first, second):
        await choose(cleo, sid)
    assert set(handles(cleo)) == {first, second}
    assert len(set(handles(cleo).values())) == 2
    taken = handles(cleo)[first]
    await ann.send(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=PUBLISHER_HANDLE))
    again = await publish(ann)
    await choose(cleo, again)
    assert handles(cleo)[again] != taken, "late packets of the former track are not taken for those of the new one"


async def test_handles_are_used_again_after_all_others(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.rooms.data_tracks.HANDLES", 4)
    ann, bob = await call.join("ann"), await call.join("bob")
    seen = []
    for _ in range(4):
        sid = await publish(ann)
        await choose(bob, sid)
        seen.append(handles(bob)[sid])
        await ann.send(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=PUBLISHER_HANDLE))
    assert seen == [1, 2, 3, 1]


async def test_a_track_that_ends_is_told_and_its_packets_are_dropped(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await publish(ann)
    await choose(bob, sid)
    await ann.send(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=PUBLISHER_HANDLE))
    assert ann.of("unpublish_data_track_response")[-1].info.sid == sid
    assert handles(bob) == {}
    assert list(bob.of("update")[-1].participants[0].data_tracks) == []
    await ann.send_data(packet(), Channel.DATA_TRACK)
    assert call.engine.sent == []
    assert call.rooms.node.dropped["data track unknown"] == 1
    await ann.send(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=PUBLISHER_HANDLE))
    assert refusals(ann) == [rtc.RequestResponse.NOT_FOUND]
    assert ann.of("request_response")[-1].unpublish_data_track.pub_handle == PUBLISHER_HANDLE


async def test_tracks_end_with_their_publisher_and_subscriptions_with_their_subscriber(call: Call) -> None:
    ann, bob, cleo = [await call.join(name) for name in ("ann", "bob", "cleo")]
    sid = await publish(ann)
    await choose(bob, sid)
    await choose(cleo, sid)
    cleo_transport = cleo.participant.data_transport
    await bob.send(leave=rtc.LeaveRequest())
    await ann.send_data(packet(), Channel.DATA_TRACK)
    assert [transports for transports, _, _ in call.engine.sent] == [(cleo_transport,)]
    await ann.send(leave=rtc.LeaveRequest())
    assert handles(cleo) == {}
    assert call.room.data_tracks.tracks == {}


async def test_who_joins_later_may_choose_before_and_take_all(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    cleo = await call.join("cleo", auto_subscribe_data=True)
    sid = await publish(ann)
    assert set(handles(cleo)) == {sid}
    assert handles(bob) == {}
    dan = await call.join("dan", auto_subscribe_data=True)
    assert set(handles(dan)) == {sid}
    await choose(dan, sid, subscribe=False)
    assert handles(dan) == {}


async def test_nobody_is_sent_its_own_track(call: Call) -> None:
    ann = await call.join("ann")
    for _ in range(3):
        await choose(ann, await publish(ann))
        await ann.send_data(packet(), Channel.DATA_TRACK)
        await ann.send(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=PUBLISHER_HANDLE))
    assert call.engine.sent == []
    assert not ann.participant.data_tracks._active, "what it does not forget with others is never begun"


async def test_the_update_that_tells_of_a_track_comes_before_its_handle(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob", auto_subscribe_data=True)
    bob.forget()
    await publish(ann)
    assert bob.kinds() == ["update", "data_track_subscriber_handles"]


async def test_a_handle_waits_for_an_update_that_waits(call: Call) -> None:
    noisy = [await call.join(f"noisy{number}", {"can_update_own_metadata": True}) for number in range(3)]
    ann, bob = await call.join("ann"), await call.join("bob", auto_subscribe_data=True)
    for client in noisy:
        await client.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * MAX_METADATA_BYTES))
        for number in range(7):
            await client.send(update_metadata=rtc.UpdateParticipantMetadata(name=f"name {number}"))
    assert call.rooms.node.dropped["updates_delayed"] > 0, "the room's allowance is used up"
    bob.forget()
    sid = await publish(ann)
    await choose(bob, sid)
    assert bob.kinds() == [], "it would know no track of this handle"
    while not handles(bob):
        await call.pass_time(1.0)
    told = [info.data_tracks for update in bob.of("update") for info in update.participants if info.identity == "ann"]
    assert [track.sid for track in told[0]] == [sid]
    assert bob.kinds().index("update") < bob.kinds().index("data_track_subscriber_handles")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pub_handle": 0}, "INVALID_HANDLE"),
        ({"pub_handle": 65536}, "INVALID_HANDLE"),
        ({"name": ""}, "INVALID_NAME"),
        ({"name": "n" * 257}, "INVALID_NAME"),
        ({"pub_handle": PUBLISHER_HANDLE}, "DUPLICATE_HANDLE"),
        ({"name": "lidar"}, "DUPLICATE_NAME"),
        ({"frame_encoding": models.DataTrackFrameEncoding(custom="")}, "INVALID_REQUEST"),
        ({"frame_encoding": models.DataTrackFrameEncoding(custom="e" * 33)}, "INVALID_REQUEST"),
        ({"schema": models.DataTrackSchemaId(name="s" * 2_000)}, "INVALID_REQUEST"),
        (
            {"schema": models.DataTrackSchemaId(encoding=models.DataTrackSchemaEncoding(custom="e" * 33))},
            "INVALID_REQUEST",
        ),
    ],
)
async def test_what_cannot_be_published_is_refused(call: Call, fields: dict[str, Any], reason: str) -> None:
    ann = await call.join("ann")
    await publish(ann)
    whole: dict[str, Any] = {"pub_handle": 8, "name": "radar"} | fields
    request = rtc.PublishDataTrackRequest(**whole)
    await ann.send(publish_data_track_request=request)
    assert refusals(ann) == [rtc.RequestResponse.Reason.Value(reason)]
    assert ann.of("request_response")[0].publish_data_track == request
    assert len(ann.participant.info.data_tracks) == 1


async def test_data_tracks_are_bounded(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.rooms.data_tracks.MAX_DATA_TRACKS_OF_A_ROOM", MAX_DATA_TRACKS + 1)
    ann, bob = await call.join("ann"), await call.join("bob")
    for number in range(MAX_DATA_TRACKS + 1):
        request = rtc.PublishDataTrackRequest(pub_handle=number + 1, name=str(number))
        await ann.send(publish_data_track_request=request)
    assert refusals(ann) == [rtc.RequestResponse.LIMIT_EXCEEDED]
    await publish(bob)
    await bob.send(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=8, name="radar"))
    assert refusals(bob) == [rtc.RequestResponse.LIMIT_EXCEEDED]
    assert call.rooms.node.dropped["data_tracks"] == 1
    assert len(call.room.data_tracks.tracks) == MAX_DATA_TRACKS + 1


async def test_a_track_more_costs_no_look_at_those_that_are_there(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, _ = await call.join("ann"), await call.join("bob")
    looked_at = []
    consider = DataTracks.consider

    def counted(self: DataTracks, track: DataTrack) -> None:
        looked_at.append(track.info.sid)
        consider(self, track)

    monkeypatch.setattr(DataTracks, "consider", counted)
    sids = [await publish(ann, number, str(number)) for number in range(1, 4)]
    assert looked_at == sids


async def test_choices_are_bounded(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.participants.data_tracks.MAX_SUBSCRIPTION_CHOICES", 2)
    ann = await call.join("ann")
    for sid in ("", "x" * (limits.MAX_SID_CHARACTERS + 1), "DTR_1", "DTR_2", "DTR_1"):
        await choose(ann, sid)
    assert refusals(ann) == []
    await choose(ann, "DTR_3")
    assert refusals(ann) == [rtc.RequestResponse.LIMIT_EXCEEDED]


async def test_the_operator_may_have_no_data_tracks(call: Call) -> None:
    call.rooms.node.config = replace(call.config, data_tracks=False)
    ann = await call.join("ann")
    await ann.send(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=1, name="lidar"))
    assert refusals(ann) == [rtc.RequestResponse.NOT_ALLOWED]


async def test_a_permission_ends_tracks_and_subscriptions_and_gives_subscriptions_back(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    service = RoomService(call.rooms)

    async def allow(identity: str, **granted: Any) -> None:
        permission = models.ParticipantPermission(**granted)
        request = room.UpdateParticipantRequest(room="hall", identity=identity, permission=permission)
        service.update_participant(request)
        await settle()

    sid = await publish(ann)
    await choose(bob, sid)
    await allow("bob", can_publish=True)
    assert handles(bob) == {}
    await allow("bob", can_subscribe=True)
    assert set(handles(bob)) == {sid}
    await allow("ann", can_publish=True, can_subscribe=True, can_publish_data=True, hidden=True)
    assert handles(bob) == {}, "the handle would name who is hidden"
    await allow("ann", can_publish=True, can_subscribe=True, can_publish_data=True)
    assert set(handles(bob)) == {sid}
    await allow("ann", can_publish=True, can_subscribe=True)
    assert handles(bob) == {}
    assert ann.of("unpublish_data_track_response")[-1].info.sid == sid
    await ann.send(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=1, name="lidar"))
    assert refusals(ann) == [rtc.RequestResponse.NOT_ALLOWED]
    await ann.send_data(packet(), Channel.DATA_TRACK)
    assert call.rooms.node.dropped["data not allowed"] == 1


async def test_a_publisher_decides_who_has_its_tracks(call: Call) -> None:
    ann, bob, recorder = await call.join("ann"), await call.join("bob"), await call.join("rec", {"recorder": True})
    sid = await publish(ann)
    await choose(bob, sid)
    await choose(recorder, sid)
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=False))
    assert handles(bob) == {}
    assert [(each.track_sid, each.allowed) for each in bob.of("subscription_permission_update")] == [(sid, False)]
    assert set(handles(recorder)) == {sid}
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    assert set(handles(bob)) == {sid}
    assert bob.of("subscription_permission_update")[-1].allowed


async def test_a_resumed_client_is_told_its_handles_and_must_know_its_tracks(call: Call) -> None:
    ann, bob, sid = await connected(call)
    await bob.lose_socket()
    again = await call.resume(bob)
    assert set(handles(again)) == {sid}
    await ann.lose_socket()
    info = models.DataTrackInfo(sid=sid)
    known = rtc.SyncState(publish_data_tracks=[rtc.PublishDataTrackResponse(info=info)])
    ann = await call.resume(ann, sync_state=known)
    assert "leave" not in ann.kinds()
    await ann.lose_socket()
    info = models.DataTrackInfo(sid="DTR_unknown")
    unknown = rtc.SyncState(publish_data_tracks=[rtc.PublishDataTrackResponse(info=info)])
    ann = await call.resume(ann, sync_state=unknown)
    assert ann.of("leave")[-1].action == rtc.LeaveRequest.RECONNECT


async def test_a_resumed_client_is_told_what_it_lost_meanwhile(call: Call) -> None:
    ann, bob, sid = await connected(call)
    await bob.lose_socket()
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=False))
    bob = await call.resume(bob)
    assert [(each.track_sid, each.allowed) for each in bob.of("subscription_permission_update")] == [(sid, False)]
    await bob.lose_socket()
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    bob = await call.resume(bob)
    assert [(each.track_sid, each.allowed) for each in bob.of("subscription_permission_update")] == [(sid, True)]
    assert set(handles(bob)) == {sid}
    await bob.lose_socket()
    await ann.send(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=PUBLISHER_HANDLE))
    bob = await call.resume(bob)
    assert [len(each.sub_handles) for each in bob.of("data_track_subscriber_handles")] == [0]


async def test_a_publisher_that_begins_and_ends_tracks_does_not_flood_its_subscribers(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob", auto_subscribe_data=True)
    for _ in range(UPDATE_BURST_BYTES // TOLD_BYTES):
        sid = await publish(ann)
        await ann.send(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=PUBLISHER_HANDLE))
    sid = await publish(ann)
    assert len(bob.of("data_track_subscriber_handles")) <= UPDATE_BURST_BYTES // TOLD_BYTES + 1
    assert handles(bob) == {}
    assert call.rooms.node.dropped["data_handles_delayed"] > 0
    await call.pass_time(2)
    assert set(handles(bob)) == {sid}, "the newest are told in the end"


async def test_a_publisher_that_refuses_and_grants_tracks_does_not_flood_its_subscribers(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob", auto_subscribe_data=True)
    sids = {await publish(ann, number, str(number)) for number in range(1, 4)}
    rounds = UPDATE_BURST_BYTES // TOLD_BYTES
    for _ in range(rounds):
        for granted in (False, True):
            await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=granted))
    assert len(bob.of("subscription_permission_update")) <= (rounds + 1) * len(sids)
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=False))
    await ann.send_data(packet(1), Channel.DATA_TRACK)
    assert call.engine.sent == [], "it holds at once"
    await call.pass_time(2)
    assert handles(bob) == {}
    told = {each.track_sid: each.allowed for each in bob.of("subscription_permission_update")}
    assert told == dict.fromkeys(sids, False), "the newest are told in the end"


@given(st.binary(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
async def test_any_bytes_are_a_packet_of_a_track_or_dropped(call: Call, payload: bytes) -> None:
    ann = await call.join("ann")
    if not ann.participant.data_tracks.published:
        await publish(ann)
    before = sum(call.rooms.node.dropped.values())
    await ann.send_data(payload, Channel.DATA_TRACK)
    whole = len(payload) >= 12 and payload[2:4] == PUBLISHER_HANDLE.to_bytes(2)
    assert sum(call.rooms.node.dropped.values()) - before == (not whole)


# Data blobs.


def blob(text: str = "key", contents: bytes = b"value") -> models.DataBlob:
    return models.DataBlob(key=models.DataBlobKey(generic=text), contents=contents)


async def ask(client: Client, text: str = "key", identity: str = "ann") -> Any:
    key = models.DataBlobKey(generic=text) if text else None
    request = rtc.GetDataBlobRequest(request_id=5, participant_identity=identity, key=key)
    client.forget()
    await client.send(get_data_blob_request=request)
    (answer,) = client.of("get_data_blob_response") or client.of("request_response")
    assert answer.request_id == 5
    return answer


@pytest.fixture
def storing(call: Call) -> Call:
    call.rooms.node.config = replace(call.config, data_blobs=True)
    return call


async def test_what_is_stored_may_be_read_by_all(storing: Call) -> None:
    ann, bob = await storing.join("ann"), await storing.join("bob")
    for contents in (b"old", b"new"):
        await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(request_id=3, blob=blob(contents=contents)))
    assert [(each.request_id, each.key.generic) for each in ann.of("store_data_blob_response")] == [(3, "key")] * 2
    assert (await ask(bob)).blob == blob(contents=b"new")
    assert (await ask(ann)).blob == blob(contents=b"new")
    assert (await ask(bob, "another")).reason == rtc.RequestResponse.NOT_FOUND
    assert (await ask(bob, identity="nobody")).reason == rtc.RequestResponse.NOT_FOUND
    assert (await ask(bob, "")).reason == rtc.RequestResponse.INVALID_REQUEST
    await ann.send(leave=rtc.LeaveRequest())
    assert (await ask(bob)).reason == rtc.RequestResponse.NOT_FOUND


async def test_nobody_learns_by_a_blob_that_somebody_is_hidden(storing: Call) -> None:
    ann, bob = await storing.join("ann", {"hidden": True}), await storing.join("bob")
    await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(blob=blob()))
    assert (await ask(bob)).message == (await ask(bob, identity="nobody")).message
    assert (await ask(ann)).blob == blob()


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (None, "INVALID_REQUEST"),
        (models.DataBlob(contents=b"value"), "INVALID_REQUEST"),
        (blob("k" * 300), "INVALID_REQUEST"),
        (blob(contents=b""), "INVALID_REQUEST"),
        (blob(contents=bytes(64_000)), "LIMIT_EXCEEDED"),
    ],
)
async def test_a_blob_that_cannot_be_stored_is_refused(
    storing: Call, stored: models.DataBlob | None, reason: str
) -> None:
    ann = await storing.join("ann")
    await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(request_id=3, blob=stored))
    (answer,) = ann.of("request_response")
    assert (answer.request_id, answer.reason) == (3, rtc.RequestResponse.Reason.Value(reason))


async def test_all_blobs_of_a_participant_are_bounded(storing: Call) -> None:
    ann = await storing.join("ann")
    for name in ("one", "two", "two"):
        await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(blob=blob(name, bytes(30_000))))
    assert refusals(ann) == [], "one that takes the place of another counts alone"
    await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(blob=blob("three", bytes(30_000))))
    assert refusals(ann) == [rtc.RequestResponse.LIMIT_EXCEEDED]


async def test_small_blobs_are_bounded_by_their_number(storing: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.participants.data_blobs.MAX_DATA_BLOBS", 2, raising=False)
    ann = await storing.join("ann")
    for name in ("one", "two", "two"):
        await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(blob=blob(name)))
    assert refusals(ann) == []
    await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(blob=blob("three")))
    assert refusals(ann) == [rtc.RequestResponse.LIMIT_EXCEEDED]


async def test_blobs_are_stored_only_where_the_operator_enabled_them(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(store_data_blob_request=rtc.StoreDataBlobRequest(blob=blob()))
    assert refusals(ann) == [rtc.RequestResponse.NOT_ALLOWED]
