"""Sockets that break and media that fails: resume, full reconnect, and clients that vanish."""

import gc
import weakref
from typing import cast

import pytest
from livekit.protocol import models, rtc
from structlog.testing import capture_logs

from signaling.config.options import MAX_METADATA_BYTES
from signaling.http import tokens
from signaling.participants import token_refresh
from signaling.participants.presence import FAILED_GRACE_S, PING_TIMEOUT_S, SILENT_S
from signaling.participants.sockets import HEARD_WITHIN_S
from signaling.participants.token_refresh import TOKEN_PACE_S
from tests.signaling.support.call import Call, settle


async def test_participant_outlives_its_socket_while_media_is_alive(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.publish("mic", "audio")
    await bob.renegotiate()
    bob.forget()
    await ann.lose_socket()
    await call.pass_time(60)
    assert call.engine.usage()["subscriptions"] == 1
    assert not bob.of("update")


async def test_client_whose_media_never_connected_goes_with_its_socket(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.lose_socket()
    assert bob.of("update")[-1].participants[-1].state == models.ParticipantInfo.DISCONNECTED
    assert call.engine.usage()["transports"] == 1


async def test_resume_answers_reconnect_first_and_then_everything_missed(call: Call) -> None:
    ann, bob, cleo = [await call.join(name) for name in ("ann", "bob", "cleo")]
    await ann.connect()
    await ann.lose_socket()
    await bob.send(leave=rtc.LeaveRequest())
    again = await call.resume(ann)
    kinds = again.kinds()
    assert kinds[0] == "reconnect"
    assert "join" not in kinds
    assert again.of("reconnect")[0].server_info.version
    states = {info.identity: info.state for info in again.of("update")[0].participants}
    assert states["bob"] == models.ParticipantInfo.DISCONNECTED
    assert states["cleo"] == models.ParticipantInfo.JOINED
    assert "ann" in states
    assert again.of("room_update")[0].room.num_participants == 2
    assert cleo.connection.code is None


async def test_who_left_and_came_back_is_not_reported_as_gone(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.lose_socket()
    await bob.send(leave=rtc.LeaveRequest())
    bob = await call.join("bob")
    again = await call.resume(ann)
    seen = [(info.sid, info.state) for info in again.of("update")[0].participants if info.identity == "bob"]
    assert seen == [(bob.sid, models.ParticipantInfo.JOINED)]


async def test_resume_replaces_a_socket_that_is_still_open_with_the_first_message(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    again = await call.resume(ann)
    await again.send(ping=1)
    assert again.of("pong")
    assert ann.connection.code == 4000, "if it was the newer one, its client must not take that for the end"
    assert ann.task.done()
    assert ann.participant.sid == ann.sid


async def test_of_two_sockets_at_once_the_client_keeps_the_one_on_which_it_speaks(call: Call) -> None:
    """An attempt that the client has given up may be served after the one that it uses."""
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.lose_socket()
    used = await call.resume(ann)
    ghost = await call.resume(ann)
    used.forget()
    await call.pass_time(1.0)
    await used.send(ping=1)
    await bob.publish("mic", "audio")
    assert used.of("pong")
    assert used.of("update"), "both are told of what happens meanwhile"
    assert "reconnect" not in used.kinds()
    assert ghost.of("update")
    await call.pass_time(HEARD_WITHIN_S)
    assert ghost.connection.code == 4000
    assert used.connection.code is None
    assert cast(object, ann.participant.connection) is used.connection


async def test_of_two_silent_sockets_the_newer_one_is_the_clients(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    again = await call.resume(ann)
    await call.pass_time(HEARD_WITHIN_S)
    assert not ann.connection.ended
    await call.pass_time(1.0)
    assert ann.connection.code == 4000
    assert cast(object, ann.participant.connection) is again.connection


@pytest.mark.parametrize("newer", [False, True])
async def test_a_participant_stays_while_one_of_its_two_sockets_does(call: Call, newer: bool) -> None:
    ann = await call.join("ann")
    await call.join("bob")
    again = await call.resume(ann)  # before its media is connected, so it would leave with its last socket
    gone, stays = (again, ann) if newer else (ann, again)
    await gone.lose_socket()
    await stays.send(ping=1)
    assert stays.of("pong")
    assert cast(object, ann.participant.connection) is stays.connection
    await stays.lose_socket()
    assert list(call.room.participants) == ["bob"]


async def test_more_than_two_sockets_are_not_kept(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    second, third = await call.resume(ann), await call.resume(ann)
    assert (ann.connection.code, second.connection.code, third.connection.code) == (None, 4000, None)
    await ann.send(leave=rtc.LeaveRequest())
    assert third.of("leave")
    assert (ann.connection.code, third.connection.code) == (1000, 1000)


async def test_resume_without_a_sid_finds_the_participant_by_its_identity(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.lose_socket()
    bob.forget()
    again = await call.resume(ann, participant_sid="")
    assert again.kinds()[0] == "reconnect"
    assert again.participant.sid == ann.sid
    assert bob.of("update") == []


@pytest.mark.parametrize("sid", ["PA_of_an_earlier_stay", "bob"])
async def test_resume_of_another_stay_is_told_to_start_again(call: Call, sid: str) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.lose_socket()
    again = await call.resume(ann, participant_sid=bob.sid if sid == "bob" else sid)
    assert again.kinds() == ["leave"]
    assert again.of("leave")[0].reason == models.STATE_MISMATCH


async def test_resume_without_a_sid_of_somebody_who_is_not_here_is_told_to_start_again(call: Call) -> None:
    await call.join("bob")
    again = await call.join("ann", reconnect=True, publisher_offer=None)
    assert again.of("leave")[0].action == rtc.LeaveRequest.RECONNECT


async def test_resume_tells_the_last_reliable_message(call: Call) -> None:
    ann = await call.join("ann")
    await call.join("bob")
    await ann.connect()
    await ann.send_data(models.DataPacket(user=models.UserPacket(payload=b"x"), sequence=41))
    await ann.lose_socket()
    again = await call.resume(ann)
    assert again.of("reconnect")[0].last_message_seq == 41


async def test_resumed_dual_client_gets_an_offer_that_restarts_ice(call: Call) -> None:
    ann = await call.join("ann", single_pc=False)
    await ann.connect()
    assert len(ann.of("offer")) == 1, "and it was never answered"
    await ann.lose_socket()
    again = await call.resume(ann, single_pc=False)
    assert again.kinds()[0] == "reconnect"
    assert len(again.of("offer")) == 1
    assert len(call.engine.restarts) == 1


async def test_unknown_participant_has_to_reconnect_in_full(call: Call) -> None:
    ann = await call.join("ann")
    for sid, identity in (("PA_unknown", "ann"), (ann.sid, "mallory")):
        session = await call.join(identity, reconnect=True, participant_sid=sid, publisher_offer=None)
        (leave,) = session.of("leave")
        assert leave.action == rtc.LeaveRequest.RECONNECT
        assert leave.reason == models.STATE_MISMATCH
        assert session.connection.code != 1000
    assert list(call.room.participants) == ["ann"]


async def test_resume_of_an_unknown_room_creates_none(call: Call) -> None:
    session = await call.join("ann", reconnect=True, participant_sid="PA_x", publisher_offer=None)
    assert session.of("leave")[0].action == rtc.LeaveRequest.RECONNECT
    assert not call.rooms.rooms


async def test_a_mute_that_was_lost_with_the_socket_is_told_again_before_anything_that_shows_it(call: Call) -> None:
    """livekit-client answers an update that shows a track muted, which it is not for all it knows, by unmuting it."""
    ann = await call.join("ann")
    await ann.connect()
    heard, lost, other = [await ann.publish(cid, "audio") for cid in ("mic", "mic2", "mic3")]
    ann.participant.publishing.mute_by_server(heard, muted=True)
    await ann.send(mute=rtc.MuteTrackRequest(sid=heard, muted=True))
    await ann.lose_socket()
    ann.participant.publishing.mute_by_server(lost, muted=True)
    again = await call.resume(ann)
    assert [(mute.sid, mute.muted) for mute in again.of("mute")] == [(lost, True)]
    kinds = again.kinds()
    assert kinds.index("reconnect") < kinds.index("mute") < kinds.index("update")
    again.participant.publishing.mute_by_server(lost, muted=False)
    third = await call.resume(ann)
    assert [(mute.sid, mute.muted) for mute in third.of("mute")] == [(lost, False)], "the last that was told"
    assert other not in [mute.sid for mute in third.of("mute")]


async def test_sync_state_with_known_tracks_is_taken_over(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    own = await ann.publish("mic", "audio")
    audio, video = await bob.publish("mic", "audio"), await bob.publish("cam", "video")
    await ann.renegotiate()
    await ann.lose_socket()
    again = await call.resume(ann)
    state = rtc.SyncState(
        publish_tracks=[rtc.TrackPublishedResponse(cid="mic", track=models.TrackInfo(sid=own))],
        subscription=rtc.UpdateSubscription(track_sids=[audio], subscribe=False),
        track_sids_disabled=[video],
    )
    await again.send(sync_state=state)
    assert not again.of("leave")
    active = again.participant.subscriptions.active
    assert list(active) == [video]
    subscription = active[video].id
    assert subscription is not None
    assert call.engine.paused[subscription]


async def test_sync_state_with_unknown_tracks_means_a_full_reconnect(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.lose_socket()
    again = await call.resume(ann)
    entry = rtc.TrackPublishedResponse(cid="mic", track=models.TrackInfo(sid="TR_gone"))
    await again.send(sync_state=rtc.SyncState(publish_tracks=[entry]))
    (leave,) = again.of("leave")
    assert (leave.action, leave.reason) == (rtc.LeaveRequest.RECONNECT, models.STATE_MISMATCH)
    assert call.engine.usage()["transports"] == 0


async def test_vanished_client_goes_when_its_consent_expires(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.publish("cam", "video")
    await bob.renegotiate()
    call.now += SILENT_S + 1
    await ann.fail()
    gone = bob.of("update")[-1].participants[-1]
    assert gone.state == models.ParticipantInfo.DISCONNECTED
    assert call.engine.usage() == {"transports": 1, "tracks": 0, "subscriptions": 0}
    assert ann.connection.code not in (None, 1000)
    assert ann.task.done()


async def test_vanished_client_without_a_socket_goes_at_once(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.lose_socket()
    await ann.fail()
    assert not call.room.participants
    assert call.engine.usage()["transports"] == 0


async def test_failed_media_of_a_talking_client_asks_it_to_start_again(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.send(ping=1)
    await ann.fail()
    assert ann.of("leave")[0].action == rtc.LeaveRequest.RECONNECT
    assert ann.connection.code not in (None, 1000)
    assert "ann" in call.room.participants, "it may come back"
    session = await call.join("ann", reconnect=True, participant_sid=ann.sid, publisher_offer=None)
    assert session.of("leave")[0].action == rtc.LeaveRequest.RECONNECT, "there is nothing to resume"
    await call.pass_time(FAILED_GRACE_S)
    assert "ann" not in call.room.participants
    assert bob.of("update")[-1].participants[-1].state == models.ParticipantInfo.DISCONNECTED


async def test_client_that_closes_its_media_first_may_still_say_leave(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.send(ping=1)
    with capture_logs() as logs:
        await ann.fail("closed by peer")
    assert [entry["event"] for entry in logs] == ["transport closed"], "it must not read like a fault"
    assert not ann.of("leave")
    await ann.send(leave=rtc.LeaveRequest())
    gone = bob.of("update")[-1].participants[-1]
    assert gone.disconnect_reason == models.CLIENT_INITIATED


async def test_client_that_never_pings_may_still_say_leave_after_it_closed_its_media(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await call.pass_time(SILENT_S + 1)
    await ann.fail("closed by peer")
    assert "ann" in call.room.participants
    await ann.send(leave=rtc.LeaveRequest())
    gone = bob.of("update")[-1].participants[-1]
    assert (gone.identity, gone.disconnect_reason) == ("ann", models.CLIENT_INITIATED)


@pytest.mark.parametrize("socket_first", [False, True])
async def test_client_that_never_pings_and_closes_media_and_socket_has_not_timed_out(
    call: Call, socket_first: bool
) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await call.pass_time(SILENT_S + 1)
    if socket_first:
        await ann.lose_socket()
        await ann.fail("closed by peer")
    else:
        await ann.fail("closed by peer")
        await ann.lose_socket()
    gone = bob.of("update")[-1].participants[-1]
    assert (gone.identity, gone.disconnect_reason) == ("ann", models.SIGNAL_CLOSE)


async def test_silent_client_whose_media_failed_has_timed_out(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await call.pass_time(SILENT_S + 1)
    await ann.fail("consent expired")
    gone = bob.of("update")[-1].participants[-1]
    assert (gone.identity, gone.disconnect_reason) == ("ann", models.CONNECTION_TIMEOUT)


async def test_client_that_closes_media_and_socket_is_gone_at_once(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.fail("closed by peer")
    await ann.lose_socket()
    assert not call.room.participants


async def test_client_that_closes_its_media_and_nothing_else_has_to_start_again(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.fail("closed by peer")
    await call.pass_time(FAILED_GRACE_S)
    assert ann.of("leave")[0].action == rtc.LeaveRequest.RECONNECT
    assert not call.room.participants


async def test_full_reconnect_replaces_the_old_participant(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await ann.publish("mic", "audio")
    await ann.fail()
    again = await call.join("ann")
    states = [info.state for update in bob.of("update") for info in update.participants if info.identity == "ann"]
    assert states[-2:] == [models.ParticipantInfo.DISCONNECTED, models.ParticipantInfo.JOINED]
    assert again.sid != ann.sid
    assert call.engine.usage()["transports"] == 2


async def test_socket_without_pings_is_closed_but_media_goes_on(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.send(ping_req=rtc.Ping(timestamp=5))
    assert ann.of("pong_resp")[0].last_ping_timestamp == 5
    await call.pass_time(PING_TIMEOUT_S - 1)
    assert not ann.connection.ended
    await call.pass_time(2)
    assert ann.connection.code not in (None, 1000)
    assert "ann" in call.room.participants


async def test_both_pings_are_answered(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(ping=1)
    await ann.send(ping_req=rtc.Ping(timestamp=1234, rtt=5))
    (pong,), (response,) = ann.of("pong"), ann.of("pong_resp")
    assert pong > 1_600_000_000_000, "milliseconds"
    assert abs(response.timestamp - pong) < 60_000
    assert response.last_ping_timestamp == 1234


async def test_scenarios_that_sdk_tests_ask_for(call: Call) -> None:
    for scenario, action, code in (
        (rtc.SimulateScenario(server_leave=True), rtc.LeaveRequest.DISCONNECT, 1000),
        (rtc.SimulateScenario(leave_request_full_reconnect=True), rtc.LeaveRequest.RECONNECT, 4000),
    ):
        ann = await call.join("ann")
        await ann.send(simulate=scenario)
        assert [leave.action for leave in ann.of("leave")] == [action]
        assert ann.connection.code == code
        assert not call.room.participants
    ann = await call.join("ann")
    await ann.send(simulate=rtc.SimulateScenario(node_failure=True))
    assert not ann.of("leave")
    assert ann.connection.code == 4000
    assert not call.room.participants


async def test_switch_of_the_candidate_protocol_restarts_ice_where_the_server_offers(call: Call) -> None:
    ann, bob = await call.join("ann", single_pc=False), await call.join("bob")
    for client in (ann, bob):
        await client.connect()
        client.forget()
        await client.send(simulate=rtc.SimulateScenario(switch_candidate_protocol=rtc.TCP))
        assert not client.of("request_response"), "it is not refused"
        assert client.connection.code is None
    assert (len(ann.of("offer")), len(bob.of("offer"))) == (1, 0)
    assert len(call.engine.restarts) == 1


async def test_simulated_disconnect_hits_the_next_resume(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.send(simulate=rtc.SimulateScenario(disconnect_signal_on_resume=True))
    assert ann.connection.code is None
    first = await call.resume(ann)
    assert first.connection.code == 4000
    second = await call.resume(ann)
    assert second.kinds()[0] == "reconnect"
    assert second.connection.code is None


async def test_too_many_departures_to_tell_mean_a_full_reconnect(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.rooms.departures.MAX_DEPARTURES", 2)
    ann = await call.join("ann")
    await ann.connect()
    await ann.lose_socket()
    for number in range(3):
        call.now += 1
        other = await call.join(f"other{number}")
        await other.send(leave=rtc.LeaveRequest())
    again = await call.resume(ann)
    assert again.of("leave")[0].action == rtc.LeaveRequest.RECONNECT


async def test_a_departure_that_was_lost_with_the_socket_is_told_again(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "signaling.rooms.room.SMALL_ROOM", 0
    )  # so that departures of who only watched wait for the others
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    ann.forget()
    await bob.send(leave=rtc.LeaveRequest())
    call.now += 0.3
    await ann.send(ping=1)
    await ann.lose_socket()
    assert not ann.of("update"), "it is told to a socket that has ended"
    await call.pass_time(2.0)
    again = await call.resume(ann)
    gone = [
        info.sid for info in again.of("update")[0].participants if info.state == models.ParticipantInfo.DISCONNECTED
    ]
    assert gone == [bob.sid]


async def test_old_clients_read_can_reconnect(call: Call) -> None:
    ann = await call.join("ann", client_info=models.ClientInfo(protocol=12))
    await ann.send(simulate=rtc.SimulateScenario(leave_request_full_reconnect=True))
    assert ann.of("leave")[0].can_reconnect


async def test_a_change_of_oneself_brings_a_token_that_says_the_same(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True}, attributes={"old": "1"})
    await call.pass_time(10)
    ann.forget()
    change = rtc.UpdateParticipantMetadata(name="Anna", metadata="hand", attributes={"hand": "up", "old": ""})
    await ann.send(update_metadata=change)
    (token,) = ann.of("refresh_token")
    claims = tokens.verify(token, call.rooms.node.config.keys)
    assert (claims.name, claims.metadata, claims.attributes) == ("Anna", "hand", {"hand": "up"})


async def test_a_burst_of_changes_brings_two_tokens_and_the_second_has_everything(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    await call.pass_time(10)
    ann.forget()
    for number in range(50):
        await ann.send(update_metadata=rtc.UpdateParticipantMetadata(attributes={"n": str(number)}))
    assert len(ann.of("refresh_token")) == 1
    await call.pass_time(TOKEN_PACE_S)
    _, last = ann.of("refresh_token")
    assert tokens.verify(last, call.rooms.node.config.keys).attributes == {"n": "49"}
    await call.pass_time(10)
    assert len(ann.of("refresh_token")) == 2


async def test_changes_in_one_turn_bring_one_token_that_has_all_of_them(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    await call.pass_time(10)
    ann.forget()
    for change in ({"name": "Anna"}, {"metadata": "hand"}, {"attributes": {"hand": "up"}}):
        ann.connection.put(rtc.SignalRequest(update_metadata=rtc.UpdateParticipantMetadata(**change)))
    await settle()
    (token,) = ann.of("refresh_token")
    claims = tokens.verify(token, call.rooms.node.config.keys)
    assert (claims.name, claims.metadata, claims.attributes) == ("Anna", "hand", {"hand": "up"})
    await call.pass_time(10)
    assert len(ann.of("refresh_token")) == 1


async def test_what_it_takes_to_sign_a_token_later_belongs_to_the_client(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    await call.pass_time(10)

    def refresh(*_: object, **__: object) -> str:
        call.now += 0.5
        return "token"

    monkeypatch.setattr(token_refresh, "refresh", refresh)
    spent: list[float] = []
    monkeypatch.setattr(ann.participant.share, "spend", spent.append)
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name="Anna"))
    assert sum(spent) == pytest.approx(0.5)
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name="Ann"))
    await call.pass_time(TOKEN_PACE_S)
    assert sum(spent) == pytest.approx(1.0)


async def test_a_refused_change_brings_no_token(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    bob = await call.join("bob")
    await call.pass_time(10)
    ann.forget()
    bob.forget()
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name="n" * 257))
    await bob.send(update_metadata=rtc.UpdateParticipantMetadata(name="Bob"))
    await call.pass_time(10)
    assert not ann.of("refresh_token")
    assert not bob.of("refresh_token")


async def test_what_no_token_can_carry_leaves_the_former_in_it(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    ann.forget()
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name="Ann", metadata="\x01" * MAX_METADATA_BYTES))
    await call.pass_time(TOKEN_PACE_S + 1)
    claims = tokens.verify(ann.of("refresh_token")[-1], call.rooms.node.config.keys)
    assert (claims.name, claims.metadata) == ("Ann", "")
    assert call.rooms.node.dropped["token too long"] >= 1
    assert call.room.participants["ann"].info.metadata == "\x01" * MAX_METADATA_BYTES


async def test_of_who_left_only_what_a_departure_says_is_kept(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob", metadata="m" * 100_000, attributes={"a": "v" * 10_000})
    await ann.connect()
    await bob.publish("cam", "video")
    await ann.lose_socket()
    await bob.send(leave=rtc.LeaveRequest())
    (departure,) = call.room.departures_since(ann.participant.presence.last_message_at)
    assert departure.ByteSize() < 256
    again = await call.resume(ann)
    (gone,) = [info for info in again.of("update")[0].participants if info.identity == "bob"]
    assert (gone.sid, gone.state) == (bob.sid, models.ParticipantInfo.DISCONNECTED)
    assert (gone.name, gone.disconnect_reason) == ("name of bob", models.CLIENT_INITIATED)


async def test_who_left_is_freed_without_the_collector(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob", single_pc=False)
    for client in (ann, bob):
        await client.publish("mic", "audio")
        await client.connect()
    gc.collect()
    gc.disable()
    try:
        left = [weakref.ref(client.participant) for client in (ann, bob)]
        for client in (ann, bob):
            await client.send(leave=rtc.LeaveRequest())
        await call.pass_time(1.0)
        assert [each() for each in left] == [None, None]
    finally:
        gc.enable()
