"""Grants of the token, and the list of a publisher that says who may subscribe to it."""

import pytest
from livekit.protocol import models, rtc

from signaling.limits import MAX_TRACK_PERMISSIONS
from tests.signaling.call import Call


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
