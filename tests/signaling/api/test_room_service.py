"""signaling/api/room_service.py: LiveKit's client against a running server, whose media is played."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import json_format
from livekit.api import TwirpError
from livekit.protocol import models, room, rtc

from sfu.parameters import Channel
from signaling.config.configuration import RoomOptions
from signaling.http.tokens import verify
from tests.signaling.support.api import ADMIN, Api, token
from tests.signaling.support.call import Client, settle

NO_ROOM = ("not_found", "requested room does not exist")
NO_PARTICIPANT = ("not_found", "participant does not exist")


async def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(TwirpError) as caught:
        await call
    return caught.value.code, caught.value.message


def last_update(client: Client) -> models.ParticipantInfo:
    info: models.ParticipantInfo = client.of("update")[-1].participants[-1]
    return info


# UpdateParticipant.


async def test_a_participant_is_changed_and_everybody_is_told_at_once(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    for client in (ann, ben):
        client.forget()
    answer = await api.client.room.update_participant(
        room.UpdateParticipantRequest(
            room="hall", identity="ann", name="Anna", metadata="null", attributes={"hand": "up", "color": "red"}
        )
    )
    await settle()
    for told in (answer, last_update(ann), last_update(ben)):
        assert (told.name, told.metadata, dict(told.attributes)) == ("Anna", "null", {"hand": "up", "color": "red"})
    api.call.now += 2
    await api.client.room.update_participant(
        room.UpdateParticipantRequest(room="hall", identity="ann", attributes={"hand": "", "role": "owner"})
    )
    await settle()
    assert dict(last_update(ben).attributes) == {"color": "red", "role": "owner"}
    assert last_update(ben).name == "Anna", "an empty name changes nothing"
    claims = verify(ann.of("refresh_token")[-1], api.call.config.keys)
    assert (claims.name, claims.metadata, claims.attributes) == ("Anna", "null", {"color": "red", "role": "owner"})


async def test_a_permission_replaces_all_of_the_former_one(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    camera, microphone = await ann.publish("cam", "video"), await ann.publish("mic", "audio")
    await ben.renegotiate()
    assert set(ben.participant.subscriptions.active) == {camera, microphone}
    for client in (ann, ben):
        client.forget()
    api.call.now += 2  # a join's own token was just sent
    permission = models.ParticipantPermission(
        can_subscribe=True, can_publish=True, can_publish_sources=[models.MICROPHONE]
    )
    answer = await api.client.room.update_participant(
        room.UpdateParticipantRequest(room="hall", identity="ann", permission=permission)
    )
    assert answer.permission == permission, "what is absent is false"
    assert [track.sid for track in answer.tracks] == [microphone]
    await settle()
    kinds = ann.kinds()
    assert ann.of("track_unpublished")[0].track_sid == camera
    assert kinds.index("track_unpublished") < kinds.index("update") < kinds.index("refresh_token")
    assert [track.sid for track in last_update(ben).tracks] == [microphone]
    assert set(ben.participant.subscriptions.active) == {microphone}
    claims = verify(ann.of("refresh_token")[-1], api.call.config.keys)
    assert claims.video.can_publish_sources == (models.MICROPHONE,)
    assert not claims.video.can_publish_data


async def test_a_source_that_is_not_known_yet_is_allowed_to_nobody(api: Api) -> None:
    ann = await api.call.join("ann")
    ann.forget()
    api.call.now += 2
    permission = models.ParticipantPermission(can_publish=True, can_publish_sources=[99])  # type: ignore[list-item]
    await api.client.room.update_participant(
        room.UpdateParticipantRequest(room="hall", identity="ann", permission=permission)
    )
    await settle()
    assert not ann.participant.removed
    claims = verify(ann.of("refresh_token")[-1], api.call.config.keys)
    assert not claims.video.may_publish(models.CAMERA)


async def test_a_room_is_open_while_there_are_people_by_their_present_permission(api: Api) -> None:
    await (await api.call.join("helper", {"recorder": True})).connect()

    async def permit(recorder: bool) -> None:
        wanted = models.ParticipantPermission(can_subscribe=True, recorder=recorder)
        await api.client.room.update_participant(
            room.UpdateParticipantRequest(room="hall", identity="helper", permission=wanted)
        )

    await permit(recorder=False)
    await api.call.pass_time(RoomOptions().empty_timeout_s + 1)
    assert "hall" in api.call.rooms.rooms, "it is a person now"
    await permit(recorder=True)
    await api.call.pass_time(1)
    await api.call.pass_time(RoomOptions().empty_timeout_s + 1)
    assert "hall" not in api.call.rooms.rooms, "it is a recorder again"


async def test_nothing_is_kept_of_an_identity_that_nobody_can_have(api: Api) -> None:
    for identity, kept in (("i" * 257, False), ("i" * 256, True)):
        body = {"room": "hall", "identity": identity, "revoke_token_ts": 10}
        answer = await api.post("RoomService/RemoveParticipant", body, ADMIN)
        assert answer.json()["code"] == "not_found"
        assert api.call.rooms.node.revocations.covers("hall", identity, 1) is kept


async def test_subscriptions_end_and_come_back_with_what_was_preferred(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    camera, microphone = await ann.publish("cam", "video"), await ann.publish("mic", "audio")
    await ben.renegotiate()
    await ben.send(subscription=rtc.UpdateSubscription(track_sids=[camera], subscribe=False))
    for allowed, expected in ((False, set()), (True, {microphone})):
        permission = models.ParticipantPermission(can_publish=True, can_subscribe=allowed)
        await api.client.room.update_participant(
            room.UpdateParticipantRequest(room="hall", identity="ben", permission=permission)
        )
        assert set(ben.participant.subscriptions.active) == expected


async def test_a_resume_with_an_older_token_does_not_bring_a_permission_back(api: Api) -> None:
    ann = await api.call.join("ann")
    await ann.connect()
    permission = models.ParticipantPermission(can_subscribe=True)
    await api.client.room.update_participant(
        room.UpdateParticipantRequest(room="hall", identity="ann", permission=permission)
    )
    again = await api.call.resume(ann)
    assert again.participant.permission == permission


async def test_a_change_of_rights_is_told_at_once_in_a_large_room(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.rooms.room.SMALL_ROOM", 0)
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    ann.forget()
    permission = models.ParticipantPermission(can_subscribe=True)
    await api.client.room.update_participant(
        room.UpdateParticipantRequest(room="hall", identity="ben", permission=permission)
    )
    await settle()
    assert last_update(ann).permission == permission
    assert ben.participant.permission == permission


@pytest.mark.parametrize(
    ("fields", "argument"),
    [
        ({"name": "n" * 257}, "name length exceeds limits"),
        ({"metadata": "m" * (512 * 1024 + 1)}, "metadata size exceeds limits"),
        ({"attributes": {"key": "v" * (64 * 1024)}}, "attribute size exceeds limits"),
    ],
)
async def test_texts_that_are_too_long_change_nothing(api: Api, fields: dict[str, Any], argument: str) -> None:
    ann = await api.call.join("ann")
    before = ann.participant.info.SerializeToString()
    with pytest.raises(TwirpError) as caught:
        await api.client.room.update_participant(room.UpdateParticipantRequest(room="hall", identity="ann", **fields))
    assert (caught.value.code, caught.value.metadata) == ("invalid_argument", {"argument": argument})
    assert ann.participant.info.SerializeToString() == before


# RemoveParticipant.


async def test_a_removed_participant_is_told_and_its_socket_is_closed(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    ben.forget()
    await api.client.room.remove_participant(room.RoomParticipantIdentity(room="hall", identity="ann"))
    await settle()
    leave = ann.of("leave")[-1]
    assert (leave.reason, leave.action) == (models.PARTICIPANT_REMOVED, rtc.LeaveRequest.DISCONNECT)
    assert ann.connection.code == 1000
    gone = last_update(ben)
    assert (gone.state, gone.disconnect_reason) == (models.ParticipantInfo.DISCONNECTED, models.PARTICIPANT_REMOVED)
    request = room.RoomParticipantIdentity(room="hall", identity="ann")
    assert await refusal(api.client.room.remove_participant(request)) == NO_PARTICIPANT


async def test_older_tokens_of_a_removed_participant_are_refused(api: Api) -> None:
    await api.call.join("ann")
    request = room.RoomParticipantIdentity(room="hall", identity="ann", revoke_token_ts=1_000)
    await api.client.room.remove_participant(request)
    tokens = {nbf: token({"room": "hall", "roomJoin": True}, sub="ann", nbf=nbf) for nbf in (999, 1_000)}
    statuses = {nbf: (await api.validate(each)).status_code for nbf, each in tokens.items()}
    assert statuses == {999: 401, 1_000: 200}
    for identity, name in (("ben", "hall"), ("ann", "attic")):
        other = token({"room": name, "roomJoin": True}, sub=identity, nbf=999)
        assert (await api.validate(other)).status_code == 200


async def test_a_revocation_holds_for_who_is_not_there_at_the_moment(api: Api) -> None:
    request = room.RoomParticipantIdentity(room="hall", identity="ann", revoke_token_ts=1_000)
    assert await refusal(api.client.room.remove_participant(request)) == NO_PARTICIPANT
    old = token({"room": "hall", "roomJoin": True}, sub="ann", nbf=999)
    assert (await api.validate(old)).status_code == 401


# MutePublishedTrack and GetParticipant.


async def test_nothing_of_a_track_is_forwarded_after_a_mute_until_its_client_says_so(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    microphone = await ann.publish("mic", "audio")
    await ben.renegotiate()
    for client in (ann, ben):
        client.forget()
    answer = await api.client.room.mute_published_track(
        room.MuteRoomTrackRequest(room="hall", identity="ann", track_sid=microphone, muted=True)
    )
    await settle()
    assert answer.track.muted
    assert (ann.of("mute")[-1].sid, ann.of("mute")[-1].muted) == (microphone, True)
    assert last_update(ben).tracks[0].muted
    (subscription,) = api.call.engine.subscriptions
    assert api.call.engine.paused[subscription]
    await ann.send(mute=rtc.MuteTrackRequest(sid=microphone, muted=True))
    assert api.call.engine.paused[subscription], "the client agrees, and is still muted"
    cleo = await api.call.join("cleo")
    await cleo.renegotiate()
    assert set(api.call.engine.paused.values()) == {True}, "it is not forwarded to those who come later either"
    _, _, parameters = list(api.call.engine.subscriptions.values())[-1]
    assert parameters.paused
    await ann.send(mute=rtc.MuteTrackRequest(sid=microphone, muted=False))
    assert set(api.call.engine.paused.values()) == {False}
    assert not last_update(ben).tracks[0].muted


async def test_a_mute_of_an_unknown_track_is_told_to_the_client_all_the_same(api: Api) -> None:
    ann = await api.call.join("ann")
    answer = await api.client.room.mute_published_track(
        room.MuteRoomTrackRequest(room="hall", identity="ann", track_sid="TR_none", muted=True)
    )
    assert not answer.HasField("track")
    assert ann.of("mute")[-1].sid == "TR_none"


async def test_the_server_does_not_unmute_unless_the_configuration_allows_it(api: Api) -> None:
    ann = await api.call.join("ann")
    microphone = await ann.publish("mic", "audio", muted=True)
    request = room.MuteRoomTrackRequest(room="hall", identity="ann", track_sid=microphone, muted=False)
    code = ("failed_precondition", "remote unmute not enabled")
    assert await refusal(api.client.room.mute_published_track(request)) == code
    api.call.room._description.options = replace(api.call.room.options, remote_unmute=True)
    assert not (await api.client.room.mute_published_track(request)).track.muted
    assert not ann.of("mute")[-1].muted


async def test_a_participant_is_described(api: Api) -> None:
    ann = await api.call.join("ann")
    info = await api.client.room.get_participant(room.RoomParticipantIdentity(room="hall", identity="ann"))
    assert (info.sid, info.identity, info.name) == (ann.sid, "ann", "name of ann")


# ListParticipants, ListRooms, SendData.


async def test_participants_are_listed_hidden_ones_too(api: Api) -> None:
    await api.call.join("ann")
    await api.call.join("spy", {"hidden": True})
    listed = await api.client.room.list_participants(room.ListParticipantsRequest(room="hall"))
    assert [each.identity for each in listed.participants] == ["ann", "spy"]
    listed = await api.client.room.list_participants(room.ListParticipantsRequest(room="nowhere"))
    assert not listed.participants


async def test_rooms_are_listed_and_unknown_names_left_out(api: Api) -> None:
    await api.call.join("ann")
    api.call.rooms.create("attic")
    listed = await api.client.room.list_rooms(room.ListRoomsRequest())
    assert [(each.name, each.num_participants) for each in listed.rooms] == [("hall", 1), ("attic", 0)]
    listed = await api.client.room.list_rooms(room.ListRoomsRequest(names=["nowhere", "attic"]))
    assert [each.name for each in listed.rooms] == ["attic"]


async def test_data_of_the_server_reach_everybody_or_those_who_are_named(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    request = room.SendDataRequest(room="hall", data=b"hello", kind=models.DataPacket.RELIABLE, topic="news")
    await api.client.room.send_data(request)
    request.destination_identities.append("ben")
    request.kind = models.DataPacket.LOSSY
    await api.client.room.send_data(request)
    (everybody, reliable, payload), (one, lossy, _) = api.call.engine.sent
    assert everybody == (ann.transport, ben.transport)
    assert (one, reliable, lossy) == ((ben.transport,), Channel.RELIABLE, Channel.LOSSY)
    packet = models.DataPacket.FromString(payload)
    assert (packet.user.payload, packet.user.topic, packet.participant_identity) == (b"hello", "news", "")
    assert (packet.sequence, packet.user.participant_sid) == (0, "")


async def test_data_with_a_nonce_are_sent_once(api: Api) -> None:
    ann = await api.call.join("ann")
    await api.call.join("ben")
    for nonce in (b"n" * 16, b"n" * 16, b"", b"", b"m" * 16):  # LiveKit's client makes a new one for each call
        request = room.SendDataRequest(room="hall", data=b"x", nonce=nonce)
        assert (await api.post("RoomService/SendData", request, ADMIN)).status_code == 200
    assert len(api.call.engine.sent) == 4
    await ann.send_data(models.DataPacket(user=models.UserPacket(payload=b"x", nonce=b"m" * 16)))
    assert len(api.call.engine.sent) == 4
    assert api.call.rooms.node.dropped["data repeated"] == 2
    answer = await api.post("RoomService/SendData", room.SendDataRequest(room="hall", nonce=b"n" * 8), ADMIN)
    assert answer.json() == {
        "code": "invalid_argument",
        "msg": "nonce should be 16-bytes or not present, got: 8 bytes",
    }


async def test_data_that_no_client_would_take_are_refused(api: Api) -> None:
    await api.call.join("ann")
    request = room.SendDataRequest(room="hall", data=bytes(256 * 1024))
    assert (await refusal(api.client.room.send_data(request)))[0] == "invalid_argument"
    assert not api.call.engine.sent


# Rooms.


async def test_metadata_of_a_room_are_told_at_once_and_to_those_who_join(api: Api) -> None:
    ann = await api.call.join("ann")
    ann.forget()
    answer = await api.client.room.update_room_metadata(
        room.UpdateRoomMetadataRequest(room="hall", metadata='{"recording": true}')
    )
    assert answer.metadata == ann.of("room_update")[-1].room.metadata == '{"recording": true}'
    ben = await api.call.join("ben")
    assert ben.joined.room.metadata == '{"recording": true}'
    await api.client.room.update_room_metadata(room.UpdateRoomMetadataRequest(room="hall", metadata=""))
    assert ann.of("room_update")[-1].room.metadata == ""


async def test_a_room_is_deleted_and_everybody_is_told(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    await api.client.room.delete_room(room.DeleteRoomRequest(room="hall"))
    await settle()
    for client in (ann, ben):
        leave = client.of("leave")[-1]
        assert (leave.reason, leave.action) == (models.ROOM_DELETED, rtc.LeaveRequest.DISCONNECT)
        assert client.connection.code == 1000
    assert await refusal(api.client.room.delete_room(room.DeleteRoomRequest(room="hall"))) == NO_ROOM


async def test_a_room_is_created_with_its_settings(api: Api) -> None:
    created = await api.client.room.create_room(
        room.CreateRoomRequest(
            name="hall",
            empty_timeout=7,
            departure_timeout=8,
            max_participants=1,
            metadata="m",
            agents=[{"agent_name": "scribe"}],
        )
    )
    assert (created.empty_timeout, created.departure_timeout, created.max_participants) == (7, 8, 1)
    assert (created.name, created.metadata) == ("hall", "m")
    ann = await api.call.join("ann")
    assert (ann.joined.room.metadata, ann.joined.room.sid) == ("m", created.sid)
    full = token({"room": "hall", "roomJoin": True}, sub="ben")
    assert (await api.validate(full)).status_code == 503
    changed = await api.client.room.create_room(room.CreateRoomRequest(name="hall", max_participants=2))
    assert (changed.sid, changed.max_participants, changed.empty_timeout) == (created.sid, 2, 7)
    assert (await api.validate(full)).status_code == 200
    (agent,) = api.call.room.dispatches.find("")
    assert agent.agent_name == "scribe"


async def test_a_created_room_ends_if_nobody_comes(api: Api) -> None:
    await api.client.room.create_room(room.CreateRoomRequest(name="hall", empty_timeout=7))
    await api.call.pass_time(6)
    assert (await api.client.room.list_rooms(room.ListRoomsRequest())).rooms
    await api.call.pass_time(2)
    assert not (await api.client.room.list_rooms(room.ListRoomsRequest())).rooms


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "n" * 257}, "invalid_argument"),
        ({"name": "hall", "metadata": "m" * (512 * 1024 + 1)}, "invalid_argument"),
        ({"name": "hall", "agents": [{"metadata": "m" * (512 * 1024 + 1)}]}, "invalid_argument"),
        ({"name": "hall", "room_preset": "unknown"}, "invalid_argument"),
        ({"name": "hall", "egress": {"room": {}}}, "internal"),
    ],
)
async def test_a_room_that_cannot_be_as_wanted_is_not_created(api: Api, fields: dict[str, Any], code: str) -> None:
    request = room.CreateRoomRequest(**fields)
    assert (await refusal(api.client.room.create_room(request)))[0] == code
    assert not api.call.rooms.rooms


async def test_a_preset_fills_in_what_a_call_or_a_token_does_not_say(api: Api) -> None:
    preset = room.RoomConfiguration(empty_timeout=11, max_participants=12, agents=[{"agent_name": "scribe"}])
    api.call.rooms.node.config = replace(api.call.config, room_presets={"small": preset})
    request = room.CreateRoomRequest(name="attic", room_preset="small", max_participants=3)
    created = await api.client.room.create_room(request)
    assert (created.empty_timeout, created.max_participants, created.departure_timeout) == (11, 3, 20)
    (agent,) = api.call.rooms.rooms["attic"].dispatches.find("")
    assert agent.agent_name == "scribe"
    for name, status in (("small", 200), ("none", 400)):
        bearer = token({"room": "hall", "roomJoin": True}, sub="ann", roomPreset=name)
        assert (await api.validate(bearer)).status_code == status


async def test_a_token_sets_up_the_room_that_its_bearer_creates_and_changes_one_that_is_there(api: Api) -> None:
    for identity, settings in (("ann", {"metadata": "first", "emptyTimeout": 9}), ("ben", {"max_participants": 5})):
        config = json_format.ParseDict(settings, room.RoomConfiguration())
        await api.call.join(identity, room_config=config)
    info = api.call.room.info
    assert (info.metadata, info.empty_timeout, info.max_participants) == ("first", 9, 5)


async def test_a_room_needs_no_name(api: Api) -> None:
    answer = await api.post("RoomService/CreateRoom", {}, {"roomCreate": True})
    assert (answer.status_code, answer.json()["name"]) == (200, "")


# UpdateSubscriptions and PerformRpc.


async def test_a_participant_is_unsubscribed_and_subscribed_again(api: Api) -> None:
    ann, ben = await api.call.join("ann"), await api.call.join("ben")
    camera, microphone = await ann.publish("cam", "video"), await ann.publish("mic", "audio")
    await ben.renegotiate()
    tracks = models.ParticipantTracks(participant_sid=ann.sid, track_sids=[microphone])
    request = room.UpdateSubscriptionsRequest(
        room="hall", identity="ben", track_sids=[camera], participant_tracks=[tracks], subscribe=False
    )
    await api.client.room.update_subscriptions(request)
    assert not ben.participant.subscriptions.active
    request.subscribe = True
    await api.client.room.update_subscriptions(request)
    assert set(ben.participant.subscriptions.active) == {camera, microphone}


async def test_participants_are_not_moved_as_in_the_open_server(api: Api) -> None:
    await api.call.join("ann")
    cases = (
        ("attic", "ann", "unknown", 500),
        ("hall", "ann", "invalid_argument", 400),
        ("attic", "x", "not_found", 404),
    )
    for destination, identity, code, status in cases:
        grant = ADMIN | {"destinationRoom": destination}
        for name in ("MoveParticipant", "ForwardParticipant"):
            request = room.MoveParticipantRequest(room="hall", identity=identity, destination_room=destination)
            answer = await api.post(f"RoomService/{name}", request, grant)
            assert (answer.status_code, answer.json()["code"]) == (status, code)


# Who is not there.


@pytest.mark.parametrize(
    ("call_", "request_", "expected"),
    [
        ("update_participant", room.UpdateParticipantRequest(room="hall", identity="x"), NO_PARTICIPANT),
        ("get_participant", room.RoomParticipantIdentity(room="hall", identity="x"), NO_PARTICIPANT),
        ("remove_participant", room.RoomParticipantIdentity(room="hall", identity="x"), NO_PARTICIPANT),
        ("mute_published_track", room.MuteRoomTrackRequest(room="hall", identity="x", muted=True), NO_PARTICIPANT),
        ("update_subscriptions", room.UpdateSubscriptionsRequest(room="hall", identity="x"), NO_PARTICIPANT),
    ],
)
@pytest.mark.parametrize("with_room", [True, False])
async def test_who_is_not_there_is_not_found(
    api: Api, call_: str, request_: Any, expected: tuple[str, str], with_room: bool
) -> None:
    if with_room:
        await api.call.join("ann")
    assert await refusal(getattr(api.client.room, call_)(request_)) == expected


async def test_a_room_that_is_not_there_is_not_found(api: Api) -> None:
    service = api.client.room
    assert await refusal(service.send_data(room.SendDataRequest(room="x"))) == NO_ROOM
    assert await refusal(service.update_room_metadata(room.UpdateRoomMetadataRequest(room="x"))) == NO_ROOM
