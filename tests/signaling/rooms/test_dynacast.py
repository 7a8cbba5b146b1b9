"""Publishers are told which layers of which codec somebody wants."""

from typing import Any

import pytest
from livekit.protocol import models, rtc

from sfu.engine import LayerUse
from sfu.parameters import Codec, TrackId
from signaling.rooms import dynacast
from signaling.rooms.dynacast import DENIED_DELAY_S, PAUSE_DELAY_S, RETURN_S
from signaling.rooms.tracks import Track
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


async def test_highest_preferred_layer_counts_and_more_is_asked_for_at_once(call: Call) -> None:
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


class Watched:
    """A camera with three layers, whose viewer's path the test decides about."""

    def __init__(self, call: Call, ann: Client, bob: Client, sid: str) -> None:
        self.call, self.ann, self.bob, self.sid = call, ann, bob, sid
        (self.track,) = ann.participant.publishing.tracks[sid].engine_tracks

    def use(self, *, sent: int, granted: int) -> None:
        self.call.engine.uses = {TrackId(self.track): LayerUse(sent, granted)}

    @property
    def told(self) -> list[str]:
        """What the publisher was told since the last look."""
        updates = [enabled(update)["vp8"] for update in self.ann.of("subscribed_quality_update")]
        self.ann.forget()
        return updates

    @property
    def resting(self) -> list[int]:
        return self.call.engine.resting.get(TrackId(self.track), [])


@pytest.fixture
async def watched(call: Call) -> Watched:
    ann, bob = await call.join("ann"), await call.join("bob")
    for client in (ann, bob):
        await client.connect()
    sid = await ann.publish("cam", "video")
    await bob.renegotiate()
    ann.forget()
    return Watched(call, ann, bob, sid)


async def test_layer_that_bandwidth_denies_to_every_viewer_stops_after_a_minute(call: Call, watched: Watched) -> None:
    watched.use(sent=1, granted=1)
    await call.pass_time(0.4)
    await call.pass_time(DENIED_DELAY_S - 1)
    await call.pass_time(PAUSE_DELAY_S - 1)
    assert watched.told == []
    await call.pass_time(PAUSE_DELAY_S)
    assert watched.told == ["medium"]
    assert watched.resting == [2]


async def test_layer_that_was_denied_is_wanted_again_when_one_viewer_may_have_it(call: Call, watched: Watched) -> None:
    watched.use(sent=0, granted=0)
    for seconds in (0.4, DENIED_DELAY_S, PAUSE_DELAY_S):
        await call.pass_time(seconds)
    assert watched.told == ["low"]
    assert watched.resting == [1, 2]
    watched.use(sent=0, granted=1)
    await call.pass_time(0.4)
    assert watched.told == ["medium"]
    assert watched.resting == [1, 2], "they count as ones that come for a while"
    await call.pass_time(RETURN_S)
    assert watched.resting == [2]
    watched.use(sent=1, granted=2)
    await call.pass_time(0.4)
    await call.pass_time(RETURN_S)
    assert watched.told == ["high"]
    assert watched.resting == []


async def test_lowest_layer_is_wanted_even_if_bandwidth_pauses_everybody(call: Call, watched: Watched) -> None:
    watched.use(sent=-1, granted=-1)
    for seconds in (0.4, DENIED_DELAY_S, PAUSE_DELAY_S):
        await call.pass_time(seconds)
    assert watched.told == ["low"]


async def test_layer_that_was_granted_meanwhile_is_denied_for_a_minute_anew(call: Call, watched: Watched) -> None:
    for granted, seconds in ((1, DENIED_DELAY_S - 1), (2, 0.4), (1, DENIED_DELAY_S - 1), (1, PAUSE_DELAY_S)):
        watched.use(sent=1, granted=granted)
        await call.pass_time(seconds)
    assert watched.told == []


async def test_what_is_preferred_anew_is_wanted_though_bandwidth_denied_it_before(call: Call, watched: Watched) -> None:
    await show(watched.bob, watched.sid, quality=models.LOW)
    watched.use(sent=0, granted=0)
    for _ in range(2):
        await call.pass_time(DENIED_DELAY_S)
    assert watched.told == ["low"]
    await show(watched.bob, watched.sid, quality=models.HIGH)
    assert watched.told == ["high"]


async def test_viewers_are_not_asked_in_each_tick_while_nothing_is_denied(
    call: Call, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Track] = []
    real = dynacast._preferred

    def preferred(track: Track) -> dict[Codec, int]:
        asked.append(track)
        return real(track)

    monkeypatch.setattr(dynacast, "_preferred", preferred)
    for sent, granted, level in ((2, 2, models.HIGH), (1, 1, models.MEDIUM), (0, 2, models.LOW)):
        await show(watched.bob, watched.sid, quality=level)
        watched.use(sent=sent, granted=granted)
        await call.pass_time(PAUSE_DELAY_S)
        asked.clear()
        for _ in range(3):
            await call.pass_time(0.4)
        assert asked == []
    await show(watched.bob, watched.sid, quality=models.HIGH)
    watched.use(sent=0, granted=1)
    asked.clear()
    await call.pass_time(0.4)
    assert asked != []


async def test_layer_that_is_still_sent_is_stopped_later(call: Call, watched: Watched) -> None:
    await show(watched.bob, watched.sid, quality=models.LOW)
    watched.use(sent=2, granted=0)
    for _ in range(3):
        await call.pass_time(PAUSE_DELAY_S)
    assert watched.told == []
    watched.use(sent=1, granted=0)
    await call.pass_time(0.4)
    assert watched.told == ["medium"]
    watched.use(sent=0, granted=0)
    await call.pass_time(0.4)
    assert watched.told == ["low"]
    await call.pass_time(PAUSE_DELAY_S)
    assert watched.told == []


async def test_what_the_engine_does_not_know_is_not_denied(call: Call, watched: Watched) -> None:
    for seconds in (0.4, DENIED_DELAY_S, PAUSE_DELAY_S):
        await call.pass_time(seconds)
    assert watched.told == []
