"""Publishing: from add_track over the offer to what others are told."""

import pytest
from livekit.protocol import models, rtc

from sfu.events import StreamStarted
from sfu.parameters import GROUPS, Codec, Kind
from signaling.config.configuration import RoomOptions
from signaling.limits import MAX_PENDING_TRACKS
from signaling.sdp.peer_connection import AnswerResult, Published
from tests.signaling.support.call import CAMERA_LAYERS, Call, Client, sdp


async def test_add_track_is_answered_at_once_with_a_sid_that_tells_its_source(call: Call) -> None:
    ann = await call.join("ann")
    for cid, kind, source, prefix in (
        ("a", models.AUDIO, models.MICROPHONE, "TR_AM"),
        ("b", models.VIDEO, models.CAMERA, "TR_VC"),
        ("c", models.VIDEO, models.SCREEN_SHARE, "TR_VS"),
        ("d", models.AUDIO, models.SCREEN_SHARE_AUDIO, "TR_As"),
    ):
        await ann.send(add_track=rtc.AddTrackRequest(cid=cid, type=kind, source=source))
        answer = ann.of("track_published")[-1]
        assert answer.cid == cid
        assert answer.track.sid.startswith(prefix)


@pytest.mark.parametrize(("announced", "shown"), [((), "video/VP8"), (("h264",), "video/H264")])
async def test_others_hear_of_a_track_when_it_is_negotiated(call: Call, announced: tuple[str, ...], shown: str) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    ann.forget()
    bob.forget()
    codecs = [rtc.SimulcastCodec(codec=name, cid="cam") for name in announced]
    sid = await ann.publish("cam", "video", start=False, simulcast_codecs=codecs)
    assert ann.kinds()[:3] == ["track_published", "answer", "update"]
    (update,) = bob.of("update")
    (track,) = update.participants[0].tracks
    assert (track.sid, track.mime_type, track.mid) == (sid, shown, "cam")
    assert track.codecs[0].mime_type == shown
    assert track.simulcast
    assert update.participants[0].is_publisher
    await bob.renegotiate()
    assert sid in bob.of("answer")[-1].mid_to_track_id.values()
    await ann.start(sid)
    assert len(bob.of("update")) == 1


async def test_layers_are_listed_from_low_to_high_with_their_ssrc(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob")
    sid = await ann.publish("cam", "video")
    engine_track = ann.engine_track(sid)
    await call.emit(StreamStarted(engine_track, 2, 4713, Codec.VP8))
    await ann.send(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
    track = bob.of("update")[-1].participants[0].tracks[0]
    layers = [(layer.quality, layer.width, layer.spatial_layer, layer.rid, layer.ssrc) for layer in track.layers]
    assert layers == [
        (models.LOW, 320, 0, "q", 4711),
        (models.MEDIUM, 640, 1, "h", 0),
        (models.HIGH, 1280, 2, "f", 4713),
    ]


async def test_layers_of_simulcast_keep_their_ssrcs_with_a_scalable_codec(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    codecs = [rtc.SimulcastCodec(codec="av1", cid="cam")]
    sid = await ann.publish("cam", "video", start=False, simulcast_codecs=codecs)
    engine_track = ann.engine_track(sid)
    for layer in (2, 0):
        await call.emit(StreamStarted(engine_track, layer, 4711 + layer, Codec.AV1))
    await ann.send(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
    track = bob.of("update")[-1].participants[0].tracks[0]
    assert [(layer.rid, layer.ssrc) for layer in track.layers] == [("q", 4711), ("h", 0), ("f", 4713)]


async def test_track_is_matched_by_its_cid(call: Call) -> None:
    ann = await call.join("ann")
    for cid in ("one", "two"):
        await ann.send(add_track=rtc.AddTrackRequest(cid=cid, type=models.AUDIO))
    sids = {answer.cid: answer.track.sid for answer in ann.of("track_published")}
    ann.sections = [{"mid": "0", "kind": "audio", "cid": "two", "codecs": ["opus"]}]
    await ann.offer()
    assert dict(ann.of("answer")[-1].mid_to_track_id) == {"0": sids["two"]}


async def test_unknown_cid_takes_the_first_waiting_track_of_its_kind(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO))
    await ann.send(add_track=rtc.AddTrackRequest(cid="cam", type=models.VIDEO))
    sid = ann.of("track_published")[-1].track.sid
    ann.sections = [{"mid": "0", "kind": "video", "cid": "{other}", "codecs": ["vp8"]}]
    await ann.offer()
    assert dict(ann.of("answer")[-1].mid_to_track_id) == {"0": sid}
    track = ann.participant.publishing.tracks[sid]
    assert track.info.codecs[0].sdp_cid == "{other}"


async def test_section_that_nobody_announced_is_refused(call: Call) -> None:
    ann = await call.join("ann")
    ann.sections = [{"mid": "0", "kind": "audio", "cid": "mic", "codecs": ["opus"]}]
    await ann.offer()
    assert not ann.of("answer")[-1].mid_to_track_id
    assert call.engine.usage()["tracks"] == 0


async def test_two_sections_of_one_offer_never_share_a_track(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO))
    sections = [{"mid": str(n), "kind": "audio", "cid": f"other{n}", "codecs": ["opus"]} for n in range(2)]
    ann.sections = sections
    await ann.offer()
    assert list(ann.of("answer")[-1].mid_to_track_id) == ["0"]


async def test_renamed_track_on_a_known_section_stays_the_same_track(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob")
    sid = await ann.publish("mic", "audio")
    await bob.renegotiate()
    ann.sections[-1]["cid"] = "renamed"
    await ann.offer()
    assert dict(ann.of("answer")[-1].mid_to_track_id) == {"mic": sid}
    await ann.start(sid)
    await bob.renegotiate()
    assert list(ann.participant.publishing.tracks) == [sid]
    assert bob.participant.subscriptions.active[sid].id in call.engine.subscriptions


async def test_first_announced_codec_is_chosen_and_svc_has_one_encoding(call: Call) -> None:
    ann = await call.join("ann")
    codecs = [rtc.SimulcastCodec(codec="vp9", cid="cam"), rtc.SimulcastCodec(codec="vp8")]
    request = rtc.AddTrackRequest(cid="cam", type=models.VIDEO, simulcast_codecs=codecs, layers=CAMERA_LAYERS)
    await ann.send(add_track=request)
    ann.sections = [{"mid": "0", "kind": "video", "cid": "cam", "codecs": ["vp8", "vp9"], "layers": 1}]
    await ann.offer()
    ((_, parameters),) = call.engine.tracks.values()
    assert len(parameters.encodings) == 1
    assert parameters.kind is Kind.VIDEO
    sid = ann.of("track_published")[0].track.sid
    (engine_track,) = ann.participant.publishing.tracks[sid].engine_tracks.values()
    assert engine_track.codec is Codec.VP9


async def test_three_encodings_of_an_svc_codec_are_simulcast(call: Call) -> None:
    ann = await call.join("ann")
    await ann.publish("cam", "video", simulcast_codecs=[rtc.SimulcastCodec(codec="av1", cid="cam")])
    ((_, parameters),) = call.engine.tracks.values()
    assert len(parameters.encodings) == 3


def subscribed_for(call: Call, client: Client, sid: str) -> Codec:
    """The codec that a client's subscription was negotiated for."""
    subscription = client.participant.renegotiation.forwardings[sid].subscription
    assert subscription is not None
    return call.engine.subscriptions[subscription][2].codec


async def test_codec_that_really_comes_wins_over_the_one_announced(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob")
    sid = await ann.publish("cam", "video", start=False, simulcast_codecs=[rtc.SimulcastCodec(codec="vp9", cid="cam")])
    await bob.renegotiate()
    assert subscribed_for(call, bob, sid) is Codec.VP9
    bob.forget()
    await ann.start(sid, Codec.VP8)
    track = bob.of("update")[-1].participants[0].tracks[0]
    assert (track.mime_type, [codec.mime_type for codec in track.codecs]) == ("video/VP8", ["video/VP8"])
    (engine_track,) = ann.participant.publishing.tracks[sid].engine_tracks.values()
    assert (engine_track.codec, engine_track.description) == (Codec.VP8, "fmtp of VP8")
    assert ann.participant.publishing.tracks[sid].codecs == (Codec.VP8,), "there is no VP9 to fall back to"
    assert bob.participant.renegotiation.forwardings[sid].subscription is None
    await bob.renegotiate()
    assert subscribed_for(call, bob, sid) is Codec.VP8
    await call.emit(StreamStarted(engine_track.id, 1, 4712, Codec.VP8))
    assert len(bob.of("update")) == 1


async def test_a_codec_may_change_in_the_middle_of_a_call(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("cam", "video")
    assert bob.of("update")[-1].participants[0].tracks[0].mime_type == "video/VP8"
    await bob.renegotiate()
    for codec in (Codec.AV1, Codec.H264, Codec.VP8):
        await ann.start(sid, codec)
        track = bob.of("update")[-1].participants[0].tracks[0]
        assert track.mime_type == f"video/{codec.name}"
        assert [entry.mime_type for entry in track.codecs] == [f"video/{codec.name}"]
        await bob.renegotiate()
        assert subscribed_for(call, bob, sid) is codec


async def test_what_a_later_answer_says_of_formats_counts_when_the_codec_changes(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video")
    (engine_track,) = ann.participant.publishing.tracks[sid].engine_tracks.values()
    formats = ((96, Codec.VP8, ""), (102, Codec.H264, "of the later offer"))
    later = Published("cam", sid, "cam", engine_track.id, Kind.VIDEO, Codec.VP8, "", formats)
    ann.participant.publishing.apply(AnswerResult("", {}, (), (), (later,)))
    await call.emit(StreamStarted(engine_track.id, 0, 4711, Codec.H264, 102))
    assert (engine_track.codec, engine_track.description) == (Codec.H264, "of the later offer")


async def test_audio_is_announced_with_red_until_something_else_is_heard(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    ann.sections.append({"mid": "mic", "kind": "audio", "cid": "mic", "codecs": ["red", "opus"], "layers": 1})
    await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO, source=models.MICROPHONE))
    await ann.offer()
    sid = ann.of("track_published")[-1].track.sid
    assert bob.of("update")[-1].participants[0].tracks[0].mime_type == "audio/red"
    await bob.renegotiate()
    subscription = bob.participant.renegotiation.forwardings[sid].subscription
    assert subscribed_for(call, bob, sid) is Codec.OPUS
    for codec, shown in ((Codec.OPUS, "audio/opus"), (Codec.RED, "audio/red")):
        await ann.start(sid, codec)
        track = bob.of("update")[-1].participants[0].tracks[0]
        assert (track.mime_type, len(track.codecs)) == (shown, 1)
    assert bob.participant.renegotiation.forwardings[sid].subscription == subscription, "who takes Opus takes RED"


async def test_a_section_whose_codec_turned_out_another_one_keeps_its_cid(call: Call) -> None:
    ann = await call.join("ann")
    codecs = [rtc.SimulcastCodec(codec="vp9", cid="cam"), rtc.SimulcastCodec(codec="vp8")]
    sid = await ann.publish("cam", "video", start=False, simulcast_codecs=codecs)
    await ann.start(sid, Codec.VP8)
    track = ann.participant.publishing.tracks[sid]
    assert [(entry.mime_type, entry.mid) for entry in track.info.codecs] == [("video/VP9", ""), ("video/VP8", "cam")]
    ann.sections.append({"mid": "more", "kind": "video", "cid": "nobody announced me", "codecs": ["vp8"], "layers": 1})
    await ann.offer()
    assert "more" not in ann.of("answer")[-1].mid_to_track_id


async def test_unpublished_track_disappears_for_everybody(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    await bob.renegotiate()
    assert call.engine.usage()["subscriptions"] == 1
    ann.sections = [section for section in ann.sections if section.get("cid") != "mic"]
    await ann.offer()
    assert not bob.of("update")[-1].participants[0].tracks
    assert call.engine.usage() == {"transports": 2, "tracks": 0, "subscriptions": 0}
    assert sid not in call.room.tracks


async def test_mute_is_told_to_others_once(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    bob.forget()
    for _ in range(2):
        await ann.send(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
    (update,) = bob.of("update")
    assert update.participants[0].tracks[0].muted


async def test_features_and_size_of_own_tracks_can_be_changed(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    audio, video = await ann.publish("mic", "audio"), await ann.publish("cam", "video")
    features = [models.TF_NOISE_SUPPRESSION, models.TF_ECHO_CANCELLATION]
    await ann.send(update_audio_track=rtc.UpdateLocalAudioTrack(track_sid=audio, features=features))
    await ann.send(update_video_track=rtc.UpdateLocalVideoTrack(track_sid=video, width=640, height=480))
    tracks = {track.sid: track for track in bob.of("update")[-1].participants[0].tracks}
    assert list(tracks[audio].audio_features) == features
    assert (tracks[video].width, tracks[video].height) == (640, 480)


async def test_asking_twice_for_a_waiting_track_gives_the_same_sid(call: Call) -> None:
    ann = await call.join("ann")
    for _ in range(2):
        await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO))
    first, second = ann.of("track_published")
    assert first.track.sid == second.track.sid


async def test_waiting_tracks_are_bounded(call: Call) -> None:
    ann = await call.join("ann")
    for number in range(MAX_PENDING_TRACKS + 1):
        await ann.send(add_track=rtc.AddTrackRequest(cid=f"mic{number}", type=models.AUDIO))
    (refusal,) = ann.of("request_response")
    assert refusal.reason == rtc.RequestResponse.LIMIT_EXCEEDED
    assert refusal.add_track.cid == f"mic{MAX_PENDING_TRACKS}"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (rtc.AddTrackRequest(type=models.AUDIO), rtc.RequestResponse.INVALID_REQUEST),
        (rtc.AddTrackRequest(cid="x", type=models.DATA), rtc.RequestResponse.UNSUPPORTED_TYPE),
        (rtc.AddTrackRequest(cid="x", name="n" * 300), rtc.RequestResponse.INVALID_REQUEST),
        (rtc.AddTrackRequest(cid="x", stream="s" * 20_000), rtc.RequestResponse.INVALID_REQUEST),
        (rtc.AddTrackRequest(cid="x", sid="TR_unknown"), rtc.RequestResponse.NOT_FOUND),
    ],
)
async def test_add_track_that_makes_no_sense_is_refused(
    call: Call, request_: rtc.AddTrackRequest, reason: rtc.RequestResponse.Reason
) -> None:
    ann = await call.join("ann")
    await ann.send(add_track=request_)
    (refusal,) = ann.of("request_response")
    assert refusal.reason == reason
    assert not ann.of("track_published")


async def test_only_the_newest_of_waiting_offers_is_answered(call: Call) -> None:
    ann = await call.join("ann")
    ann.forget()
    for number in (2, 3, 4):
        description = rtc.SessionDescription(type="offer", sdp=sdp(*ann.sections), id=number)
        ann.participant.renegotiation.receive_offer(description)
    await ann.send(ping=1)
    assert [answer.id for answer in ann.of("answer")] == [4]


async def test_only_microphones_are_among_the_voices_of_which_the_loudest_are_forwarded(call: Call) -> None:
    call.rooms._options = RoomOptions(forward_loudest=3)
    ann = await call.join("ann")
    await ann.publish("mic", "audio")
    await ann.publish("cam", "video")
    await ann.publish("music", "audio", source=models.SCREEN_SHARE_AUDIO)
    groups = [(parameters.group, parameters.group_limit) for _, parameters in call.engine.tracks.values()]
    assert groups == [(1, 3), (0, 0), (0, 0)]
    assert call.room.voices == 1


async def test_rooms_that_forward_the_loudest_have_groups_of_their_own_and_give_them_back(call: Call) -> None:
    node = call.rooms.node
    assert [node.take_group() for _ in range(3)] == [1, 2, 3]
    node.give_back_group(2)
    assert node.take_group() == 2
    assert len({node.take_group() for _ in range(GROUPS)}) == GROUPS - 3
    assert node.take_group() == 0
