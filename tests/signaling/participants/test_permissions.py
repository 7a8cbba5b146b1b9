"""Grants of the token, and the list of a publisher that says who may subscribe to it."""

from typing import Any

import pytest
from livekit.protocol import models, rtc

from sfu.events import SubscriptionPaused
from sfu.parameters import Kind
from signaling.limits import MAX_TRACK_PERMISSIONS
from signaling.sdp.peer_connection import WantedTrack
from tests.signaling.support.call import Call
from tests.signaling.support.fake_peer_connection import FakeAnsweringConnection, FakeOfferingConnection


async def test_publishing_without_the_grant_is_refused(call: Call) -> None:
    ann = await call.join("ann", {"can_publish": False})
    await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO, source=models.MICROPHONE))
    (refusal,) = ann.of("request_response")
    assert refusal.reason == rtc.RequestResponse.NOT_ALLOWED
    assert refusal.add_track.cid == "mic"
    assert not ann.joined.participant.permission.can_publish


async def test_only_the_granted_sources_may_be_published(call: Call) -> None:
    ann = await call.join("ann", {"can_publish_sources": (models.MICROPHONE,)})
    await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO, source=models.MICROPHONE))
    await ann.send(add_track=rtc.AddTrackRequest(cid="cam", type=models.VIDEO, source=models.CAMERA))
    assert [answer.cid for answer in ann.of("track_published")] == ["mic"]
    assert ann.of("request_response")[0].reason == rtc.RequestResponse.NOT_ALLOWED


async def test_who_may_not_subscribe_gets_nothing(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    bob = await call.join("bob", {"can_subscribe": False})
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=True))
    await bob.renegotiate()
    assert call.engine.usage()["subscriptions"] == 0


async def test_own_metadata_needs_the_grant(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="x", request_id=5))
    (refusal,) = ann.of("request_response")
    assert (refusal.request_id, refusal.reason) == (5, rtc.RequestResponse.NOT_ALLOWED)
    assert refusal.update_metadata.metadata == "x"


async def test_own_metadata_and_attributes_are_merged_and_told(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True}, attributes={"keep": "1", "drop": "1"})
    bob = await call.join("bob")
    await ann.send(
        update_metadata=rtc.UpdateParticipantMetadata(
            name="Ann", metadata="m", attributes={"drop": "", "new": "2"}, request_id=6
        )
    )
    info = bob.of("update")[-1].participants[-1]
    assert (info.name, info.metadata, dict(info.attributes)) == ("Ann", "m", {"keep": "1", "new": "2"})
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(attributes={"third": "3"}))
    info = bob.of("update")[-1].participants[-1]
    assert (info.name, info.metadata) == ("Ann", "m")
    assert [response.reason for response in ann.of("request_response")] == [rtc.RequestResponse.OK] * 2


@pytest.mark.parametrize(
    "update",
    [
        rtc.UpdateParticipantMetadata(metadata="m" * (512 * 1024 + 1)),
        rtc.UpdateParticipantMetadata(name="n" * 257),
        rtc.UpdateParticipantMetadata(attributes={"key": "v" * 64 * 1024}),
    ],
)
async def test_too_long_metadata_changes_nothing(call: Call, update: rtc.UpdateParticipantMetadata) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    before = ann.participant.info.version
    await ann.send(update_metadata=update)
    assert ann.of("request_response")[0].reason == rtc.RequestResponse.LIMIT_EXCEEDED
    assert ann.participant.info.version == before


async def test_publisher_decides_who_may_subscribe(call: Call) -> None:
    ann, bob, cleo = [await call.join(name) for name in ("ann", "bob", "cleo")]
    sid = await ann.publish("mic", "audio")
    await bob.renegotiate()
    await cleo.renegotiate()
    entry = rtc.TrackPermission(participant_identity="cleo", all_tracks=True)
    await ann.send(subscription_permission=rtc.SubscriptionPermission(track_permissions=[entry]))
    (update,) = bob.of("subscription_permission_update")
    assert (update.participant_sid, update.track_sid, update.allowed) == (ann.sid, sid, False)
    assert not cleo.of("subscription_permission_update")
    assert [transport for _, transport, _ in call.engine.subscriptions.values()] == [cleo.transport]

    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    assert bob.of("subscription_permission_update")[-1].allowed
    await bob.renegotiate()
    assert call.engine.usage()["subscriptions"] == 2


async def test_permission_for_single_tracks(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob")
    first, second = await ann.publish("mic", "audio"), await ann.publish("mic2", "audio")
    entry = rtc.TrackPermission(participant_sid=bob.sid, track_sids=[second])
    await ann.send(subscription_permission=rtc.SubscriptionPermission(track_permissions=[entry]))
    assert list(bob.participant.subscriptions.active) == [second]
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[first], subscribe=True))
    assert not bob.of("subscription_permission_update")[-1].allowed


async def test_too_long_permission_list_is_refused(call: Call) -> None:
    ann = await call.join("ann")
    entries = [rtc.TrackPermission(participant_sid="PA_x")] * (MAX_TRACK_PERMISSIONS + 1)
    await ann.send(subscription_permission=rtc.SubscriptionPermission(track_permissions=entries))
    assert ann.of("request_response")[0].reason == rtc.RequestResponse.LIMIT_EXCEEDED
    assert ann.participant.access.everyone


async def test_resume_with_a_smaller_grant_ends_what_it_forbids(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    sid = await ann.publish("cam", "video")
    await bob.renegotiate()
    await ann.lose_socket()
    again = await call.resume(ann, grant={"can_publish": False})
    assert [message.track_sid for message in again.of("track_unpublished")] == [sid]
    assert call.engine.usage()["subscriptions"] == 0
    info = bob.of("update")[-1].participants[-1]
    assert not info.tracks
    assert not info.permission.can_publish


@pytest.mark.parametrize("grant", [{"can_publish": False}, {"can_publish_sources": (models.CAMERA,)}])
async def test_resume_with_a_smaller_grant_ends_what_was_only_announced(call: Call, grant: dict[str, Any]) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO, source=models.MICROPHONE))
    sid = ann.of("track_published")[0].track.sid
    await ann.lose_socket()
    again = await call.resume(ann, grant=grant)
    assert [message.track_sid for message in again.of("track_unpublished")] == [sid]
    again.sections.append({"mid": "mic", "kind": "audio", "cid": "mic", "codecs": ["opus"]})
    await again.offer(id=7)
    assert again.of("answer")
    assert call.engine.usage()["tracks"] == 0


async def test_who_comes_later_is_told_what_it_may_not_have(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    await ann.send(subscription_permission=rtc.SubscriptionPermission())
    bob = await call.join("bob")
    (update,) = bob.of("subscription_permission_update")
    assert (update.participant_sid, update.track_sid, update.allowed) == (ann.sid, sid, False)
    kinds = bob.kinds()
    assert kinds.index("join") < kinds.index("subscription_permission_update")


async def test_a_track_that_comes_later_is_told_to_those_who_may_not_have_it(call: Call) -> None:
    ann, bob, cleo = await call.join("ann"), await call.join("bob"), await call.join("cleo", auto_subscribe=False)
    entry = rtc.TrackPermission(participant_identity="dora", all_tracks=True)
    await ann.send(subscription_permission=rtc.SubscriptionPermission(track_permissions=[entry]))
    dora = await call.join("dora")
    sid = await ann.publish("mic", "audio")
    assert [update.track_sid for update in bob.of("subscription_permission_update")] == [sid]
    kinds = bob.kinds()
    shown = max(n for n, message in enumerate(bob.connection.sent) if message.WhichOneof("message") == "update")
    assert shown < kinds.index("subscription_permission_update"), "of a track that the client does not know"
    assert not cleo.of("subscription_permission_update"), "it did not ask for the track"
    assert not dora.of("subscription_permission_update"), "it has the track"


async def test_a_refusal_is_told_once_and_again_to_who_asks(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    for _ in range(3):
        await ann.send(subscription_permission=rtc.SubscriptionPermission())
    assert len(bob.of("subscription_permission_update")) == 1
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=True))
    assert len(bob.of("subscription_permission_update")) == 2
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=False))
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    assert len(bob.of("subscription_permission_update")) == 2, "it did not want the track any more"
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=True))
    assert [update.allowed for update in bob.of("subscription_permission_update")] == [False, False, True]


async def test_resume_repeats_what_a_client_may_not_have(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await bob.connect()
    first, second = await ann.publish("mic", "audio"), await ann.publish("mic2", "audio")
    await ann.send(subscription_permission=rtc.SubscriptionPermission())
    await bob.lose_socket()
    entry = rtc.TrackPermission(participant_identity="bob", track_sids=[second])
    await ann.send(subscription_permission=rtc.SubscriptionPermission(track_permissions=[entry]))
    again = await call.resume(bob)
    told = [(update.track_sid, update.allowed) for update in again.of("subscription_permission_update")]
    assert told == [(first, False), (second, True)]


async def test_resume_says_nothing_of_a_refused_track_that_has_ended(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await bob.connect()
    await ann.publish("mic", "audio")
    await ann.send(subscription_permission=rtc.SubscriptionPermission())
    await ann.send(leave=rtc.LeaveRequest())
    await bob.lose_socket()
    again = await call.resume(bob)
    assert again.kinds()[0] == "reconnect"
    assert not again.of("subscription_permission_update")
    assert not again.of("leave")


@pytest.mark.parametrize("single_pc", [True, False])
async def test_nothing_names_a_hidden_publisher(call: Call, single_pc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[WantedTrack] = []
    connection = FakeAnsweringConnection if single_pc else FakeOfferingConnection
    want = connection.want

    def note(self: Any, track: WantedTrack) -> None:
        wanted.append(track)
        want(self, track)

    monkeypatch.setattr(connection, "want", note)
    ann = await call.join("ann", {"hidden": True})
    bob = await call.join("bob", single_pc=single_pc)
    await ann.publish("mic", "audio")
    await ann.publish("cam", "video")
    # Of the two tracks, which are forwarded, SDP and RTCP tell only that they belong together.
    assert [track.kind for track in wanted] == [Kind.AUDIO, Kind.VIDEO]
    assert len({name for track in wanted for name in (track.publisher_sid, track.cname)}) == 1
    await ann.send(subscription_permission=rtc.SubscriptionPermission())
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    await ann.send(simulate=rtc.SimulateScenario(speaker_update=3))
    await call.pass_time(6)
    sid = ann.sid
    await ann.send(leave=rtc.LeaveRequest())
    cleo = await call.join("cleo")
    assert not bob.of("subscription_permission_update")
    for told in (*bob.connection.sent, *cleo.connection.sent, *wanted):
        assert sid not in str(told)
        assert '"ann"' not in str(told)


async def test_a_pause_does_not_name_a_hidden_publisher(call: Call) -> None:
    ann = await call.join("ann", {"hidden": True})
    sid = await ann.publish("cam", "video")
    bob = await call.join("bob")
    (subscription,) = call.rooms.node.subscribers
    await call.emit(SubscriptionPaused(subscription, True))
    ((state,),) = (update.stream_states for update in bob.of("stream_state_update"))
    assert (state.track_sid, state.state) == (sid, rtc.PAUSED)
    assert state.participant_sid not in ("", ann.sid)


async def test_who_is_hidden_by_a_resume_leaves_for_the_others(call: Call) -> None:
    ann, bob, cleo = await call.join("ann"), await call.join("bob"), await call.join("cleo")
    await ann.connect()
    await cleo.connect()
    await cleo.lose_socket()
    await ann.lose_socket()
    again = await call.resume(ann, grant={"hidden": True})
    gone = bob.of("update")[-1].participants[-1]
    assert (gone.sid, gone.state) == (ann.sid, models.ParticipantInfo.DISCONNECTED)
    assert not any(
        info.state == models.ParticipantInfo.DISCONNECTED for u in again.of("update") for info in u.participants
    )
    bob.forget()
    await again.send(leave=rtc.LeaveRequest())
    assert not bob.of("update")
    back = await call.resume(cleo)
    states = {info.sid: info.state for info in back.of("update")[0].participants}
    assert states[ann.sid] == models.ParticipantInfo.DISCONNECTED
