"""Hostile and broken clients: a clear answer, and nobody else notices."""

import pytest
from livekit.protocol import models, rtc

from sfu.events import LayersChanged, StreamStarted, SubscriptionPaused, SubscriptionStarted, TransportFailed
from sfu.parameters import Codec, SubscriptionId
from signaling.http.connection import BadMessage
from signaling.limits import MAX_BAD_MESSAGES
from signaling.participants import handlers
from tests.signaling.support.call import Call, settle


async def test_malformed_frame_is_answered_and_the_session_goes_on(call: Call) -> None:
    ann = await call.join("ann")
    ann.connection.put(BadMessage("not protobuf"))
    await ann.send(ping=1)
    (response,) = ann.of("request_response")
    assert (response.reason, response.message) == (rtc.RequestResponse.INVALID_REQUEST, "not protobuf")
    assert ann.of("pong")


async def test_many_malformed_frames_end_the_session(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for _ in range(MAX_BAD_MESSAGES):
        ann.connection.put(BadMessage("garbage"))
    await settle()
    await settle()
    assert ann.of("leave")[0].reason == models.STATE_MISMATCH
    assert ann.task.done()
    assert list(call.room.participants) == ["bob"]
    assert bob.connection.code is None


async def test_empty_and_unknown_requests_are_ignored(call: Call) -> None:
    ann = await call.join("ann")
    ann.forget()
    ann.connection.put(rtc.SignalRequest())
    ann.connection.put(rtc.SignalRequest.FromString(b"\xfa\x3e\x05hello"))
    await ann.send(update_layers=rtc.UpdateVideoLayers(track_sid="TR_x"))
    assert not ann.kinds()


async def test_unusable_offer_ends_that_session_with_a_reason(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.send(offer=rtc.SessionDescription(type="offer", sdp="v=garbage"))
    (leave,) = ann.of("leave")
    assert (leave.reason, leave.action) == (models.MEDIA_FAILURE, rtc.LeaveRequest.DISCONNECT)
    assert bob.connection.code is None
    assert call.engine.usage()["transports"] == 1


async def test_unusable_offer_inside_the_join_is_answered_the_same(call: Call) -> None:
    ann = await call.join("ann", publisher_offer=rtc.SessionDescription(type="offer", sdp="garbage"))
    assert ann.kinds()[0] == "join"
    assert ann.of("leave")[0].reason == models.MEDIA_FAILURE


async def test_unusable_answer_ends_that_session_with_a_reason(call: Call) -> None:
    ann = await call.join("ann", single_pc=False)
    await ann.send(answer=rtc.SessionDescription(type="answer", sdp="garbage", id=1))
    assert ann.of("leave")[0].reason == models.MEDIA_FAILURE


@pytest.mark.parametrize(
    "request_",
    [
        {"mute": rtc.MuteTrackRequest(sid="TR_unknown", muted=True)},
        {"update_audio_track": rtc.UpdateLocalAudioTrack(track_sid="TR_unknown")},
        {"update_video_track": rtc.UpdateLocalVideoTrack(track_sid="TR_unknown")},
    ],
)
async def test_unknown_track_is_answered_with_the_request(call: Call, request_: dict[str, object]) -> None:
    ann = await call.join("ann")
    await ann.send(**request_)
    (response,) = ann.of("request_response")
    (name, message) = next(iter(request_.items()))
    assert response.reason == rtc.RequestResponse.NOT_FOUND
    assert getattr(response, name) == message


async def test_settings_for_unknown_tracks_are_harmless(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(track_setting=rtc.UpdateTrackSettings(track_sids=["TR_unknown"], disabled=True))
    await ann.send(trickle=rtc.TrickleRequest(candidateInit="{not json"))
    await ann.send(ping=1)
    assert ann.of("pong")


async def test_choices_are_bounded(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signaling.participants.subscriptions.MAX_SUBSCRIPTION_CHOICES", 3)
    ann = await call.join("ann")
    sids = [f"TR_{number}" for number in range(5)]
    await ann.send(subscription=rtc.UpdateSubscription(track_sids=sids, subscribe=True))
    assert ann.of("request_response")[0].reason == rtc.RequestResponse.LIMIT_EXCEEDED
    await ann.send(track_setting=rtc.UpdateTrackSettings(track_sids=sids))
    assert ann.of("request_response")[1].reason == rtc.RequestResponse.LIMIT_EXCEEDED


async def test_overlong_sids_are_not_kept(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(subscription=rtc.UpdateSubscription(track_sids=["T" * 10_000], subscribe=True))
    assert ann.of("request_response")[0].reason == rtc.RequestResponse.INVALID_REQUEST


async def test_bug_in_a_handler_costs_one_participant(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(participant: object, message: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(handlers.HANDLERS, "ping", broken)
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.send(ping=1)
    assert ann.of("leave")[0].action == rtc.LeaveRequest.RECONNECT
    assert ann.task.done()
    assert list(call.room.participants) == ["bob"]
    await bob.send(ping_req=rtc.Ping(timestamp=1))
    assert bob.of("pong_resp")


async def test_events_of_rows_that_are_gone_are_harmless(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    transport, engine_track = ann.transport, ann.engine_track(sid)
    await ann.send(leave=rtc.LeaveRequest())
    for event in (
        TransportFailed(transport, "consent expired"),
        StreamStarted(engine_track, 0, 1, Codec.OPUS),
        LayersChanged(engine_track, 1),
        SubscriptionStarted(SubscriptionId(99)),
        SubscriptionPaused(SubscriptionId(99), True),
    ):
        await call.emit(event)
    assert not call.room.participants
