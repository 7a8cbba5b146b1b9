"""Publishers are told which layers of which codec somebody wants."""

from typing import Any

from livekit.protocol import models, rtc

from sfu.parameters import Codec
from signaling.rooms.dynacast import PAUSE_DELAY_S
from tests.signaling.support.call import Call, Client, sdp, settle

LEVELS = {models.LOW: "low", models.MEDIUM: "medium", models.HIGH: "high"}


def enabled(update: rtc.SubscribedQualityUpdate) -> dict[str, str]:
    """Return codec -> the highest enabled quality, checked to be without gaps."""
    result = {}
    for codec in update.subscribed_codecs:
        wanted = [quality.quality for quality in codec.qualities if quality.enabled]
        assert wanted == list(LEVELS)[: len(wanted)]
        result[codec.codec] = LEVELS[wanted[-1]] if wanted else "off"
    return result


async def show(client: Client, sid: str, **settings: Any) -> None:
    await client.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], **settings))


async def publish_vp9_with_backup(client: Client, primary: str = "vp9") -> str:
    codecs = [rtc.SimulcastCodec(codec=primary, cid="cam"), rtc.SimulcastCodec(codec="vp8")]
    return await client.publish("cam", "video", simulcast_codecs=codecs)


async def test_track_that_nobody_watches_is_paused_after_a_delay(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video")
    await call.pass_time(PAUSE_DELAY_S - 1)
    assert not ann.of("subscribed_quality_update")
    await call.pass_time(1)
    (update,) = ann.of("subscribed_quality_update")
    assert update.track_sid == sid
    assert enabled(update) == {"vp8": "off"}
    assert [quality.enabled for quality in update.subscribed_qualities] == [False] * 3


async def test_highest_wish_counts_and_more_is_asked_for_at_once(call: Call) -> None:
    ann, bob, cleo = [await call.join(name) for name in ("ann", "bob", "cleo")]
    sid = await ann.publish("cam", "video")
    await show(bob, sid, quality=models.LOW)
    await show(cleo, sid, quality=models.MEDIUM)
    await call.pass_time(PAUSE_DELAY_S)
    assert enabled(ann.of("subscribed_quality_update")[-1]) == {"vp8": "medium"}
    await show(bob, sid, quality=models.HIGH)
    assert enabled(ann.of("subscribed_quality_update")[-1]) == {"vp8": "high"}


async def test_short_dip_is_not_told(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("cam", "video")
    await show(bob, sid, quality=models.HIGH)
    await show(bob, sid, disabled=True)
    await call.pass_time(PAUSE_DELAY_S - 1)
    await show(bob, sid, quality=models.HIGH)
    await call.pass_time(PAUSE_DELAY_S)
    assert not ann.of("subscribed_quality_update")


async def test_leaving_viewer_lowers_the_demand(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.publish("cam", "video")
    await bob.send(leave=rtc.LeaveRequest())
    await call.pass_time(PAUSE_DELAY_S)
    assert enabled(ann.of("subscribed_quality_update")[-1]) == {"vp8": "off"}


async def test_audio_is_left_alone(call: Call) -> None:
    ann = await call.join("ann")
    await ann.publish("mic", "audio")
    await call.pass_time(PAUSE_DELAY_S)
    assert not ann.of("subscribed_quality_update")


async def test_subscriber_without_the_codec_makes_the_publisher_send_its_backup(call: Call) -> None:
    ann = await call.join("ann")
    sid = await publish_vp9_with_backup(ann, primary="h264")
    await ann.start(sid, Codec.H264)
    firefox_codecs = {"mid": "v", "kind": "video", "codecs": ["vp8", "vp9", "av1"]}
    offer = rtc.SessionDescription(type="offer", sdp=sdp(firefox_codecs), id=1)
    bob = await call.join("bob", publisher_offer=offer)
    await settle()
    assert enabled(ann.of("subscribed_quality_update")[-1])["vp8"] == "high"
    assert not bob.of("subscription_response")

    # What livekit-client does then: it announces the codec for the same track and offers a section for it.
    await ann.send(
        add_track=rtc.AddTrackRequest(
            cid="cam-vp8",
            sid=sid,
            type=models.VIDEO,
            source=models.CAMERA,
            simulcast_codecs=[rtc.SimulcastCodec(codec="vp8", cid="cam-vp8")],
        )
    )
    assert ann.of("track_published")[-1].track.sid == sid
    ann.sections.append({"mid": "backup", "kind": "video", "cid": "cam-vp8", "codecs": ["vp8", "vp9"], "layers": 3})
    await ann.offer(id=2)
    assert ann.of("answer")[-1].mid_to_track_id["backup"] == sid
    await ann.start(sid, Codec.VP8)
    bob.sections = [firefox_codecs]
    await bob.renegotiate()
    subscription = bob.participant.subscriptions.active[sid].id
    assert subscription is not None
    engine_track, _, _ = call.engine.subscriptions[subscription]
    assert ann.participant.publishing.tracks[sid].engine_tracks[engine_track].codec is Codec.VP8
    codecs = bob.of("update")[-1].participants[0].tracks[0].codecs
    assert [codec.mime_type for codec in codecs] == ["video/H264", "video/VP8"]


async def test_both_codecs_are_sent_while_both_have_viewers(call: Call) -> None:
    ann = await call.join("ann")
    sid = await publish_vp9_with_backup(ann, primary="h264")
    await ann.start(sid, Codec.H264)
    await call.join("chrome")
    sections = {"mid": "v", "kind": "video", "codecs": ["vp8"]}
    await call.join("firefox", publisher_offer=rtc.SessionDescription(type="offer", sdp=sdp(sections), id=1))
    await call.pass_time(PAUSE_DELAY_S)
    assert enabled(ann.of("subscribed_quality_update")[-1]) == {"h264": "high", "vp8": "high"}


async def test_resumed_publisher_is_told_again(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await ann.publish("cam", "video")
    await call.pass_time(PAUSE_DELAY_S)
    await ann.lose_socket()
    again = await call.resume(ann)
    assert enabled(again.of("subscribed_quality_update")[-1]) == {"vp8": "off"}
