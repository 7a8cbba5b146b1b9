"""Rooms over real SDP: a browser's offers through the real peer connections, the engine alone is fake."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from livekit.protocol import models, rtc

from sfu.parameters import Codec
from signaling.config.configuration import RoomOptions
from signaling.sdp.parsing import parse
from tests.signaling.support.call import CAMERA_LAYERS, Call

OFFERS = Path(__file__).parents[1] / "offers"
MICROPHONE = "f53d6ccf-99f1-43eb-9914-b0a911b94be2"
CAMERA = "1f97f359-c9b3-4498-b9e1-67f348ee0424"
"""Track ids in chromium-publish.sdp."""


def offer(name: str, id_: int = 1) -> rtc.SessionDescription:
    return rtc.SessionDescription(type="offer", sdp=(OFFERS / name).read_text(), id=id_)


@pytest.fixture
async def sdp_call() -> AsyncIterator[Call]:
    running = Call()
    yield running
    await running.end()


async def test_chromium_publishes_and_another_receives_in_single_mode(sdp_call: Call) -> None:
    ann = await sdp_call.join("ann", publisher_offer=None)
    await ann.send(add_track=rtc.AddTrackRequest(cid=MICROPHONE, type=models.AUDIO, source=models.MICROPHONE))
    await ann.send(
        add_track=rtc.AddTrackRequest(
            cid=CAMERA, type=models.VIDEO, source=models.CAMERA, width=1280, height=720, layers=CAMERA_LAYERS
        )
    )
    audio, video = (answer.track.sid for answer in ann.of("track_published"))
    await ann.send(offer=offer("chromium-publish.sdp", 5))
    (answer,) = ann.of("answer")
    assert answer.id == 5
    assert {sid: mid for mid, sid in answer.mid_to_track_id.items()} == {audio: "2", video: "3"}
    await ann.start(audio)
    await ann.start(video, Codec.VP8)

    bob = await sdp_call.join("bob", publisher_offer=offer("chromium-join.sdp"))
    assert bob.kinds()[0] == "join"
    (answer,) = bob.of("answer")
    assert set(answer.mid_to_track_id.values()) == {audio, video}
    assert f"a=msid:{ann.sid}|{video} {video}" in answer.sdp
    assert sdp_call.engine.usage()["subscriptions"] == 2
    subscription = bob.participant.subscriptions.active[video].id
    assert subscription is not None
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[video], quality=models.LOW))
    assert sdp_call.engine.layers[subscription] == (0, 3)


async def test_dual_client_gets_a_real_offer_with_what_is_there(sdp_call: Call) -> None:
    ann = await sdp_call.join("ann", publisher_offer=None)
    await ann.send(add_track=rtc.AddTrackRequest(cid=MICROPHONE, type=models.AUDIO, source=models.MICROPHONE))
    await ann.send(offer=offer("chromium-publish.sdp"))
    sid = ann.of("track_published")[0].track.sid
    await ann.start(sid)
    bob = await sdp_call.join("bob", single_pc=False)
    (description,) = bob.of("offer")
    assert list(description.mid_to_track_id.values()) == [sid]
    assert f"a=msid:{ann.sid}|{sid} {sid}" in description.sdp
    assert sdp_call.engine.channels == [bob.participant.renegotiation.data_transport]


@pytest.mark.parametrize(
    ("sdk", "renewed"), [(models.ClientInfo.PYTHON, True), (models.ClientInfo.JS, False), (models.ClientInfo.GO, False)]
)
async def test_a_section_without_track_is_rejected_only_for_who_hears_of_a_track_once(
    sdp_call: Call, sdk: models.ClientInfo.SDK, renewed: bool
) -> None:
    bob = await sdp_call.join("bob", single_pc=False, client_info=models.ClientInfo(protocol=17, sdk=sdk))
    connection = bob.participant.renegotiation._offering  # type: ignore[attr-defined]
    assert connection._renews_sections is renewed


async def test_offer_of_a_megabyte_is_refused_and_the_room_goes_on(sdp_call: Call) -> None:
    ann = await sdp_call.join("ann", publisher_offer=offer("chromium-join.sdp"))
    bob = await sdp_call.join("bob", publisher_offer=offer("chromium-join.sdp"))
    huge = (OFFERS / "chromium-join.sdp").read_text() + "a=padding:" + "x" * 2**20 + "\r\n"
    await ann.send(offer=rtc.SessionDescription(type="offer", sdp=huge))
    assert ann.of("leave")[0].reason == models.MEDIA_FAILURE
    await bob.send(offer=offer("chromium-join.sdp", 2))
    assert [answer.id for answer in bob.of("answer")] == [1, 2]


async def test_only_the_rooms_codecs_may_be_published(sdp_call: Call) -> None:
    sdp_call.rooms.create("hall", RoomOptions(enabled_codecs=("audio/opus", "video/h264", "video/rtx")))
    ann = await sdp_call.join("ann", publisher_offer=None)
    enabled = ["audio/opus", "video/H264"]
    assert [codec.mime for codec in ann.joined.enabled_publish_codecs] == enabled
    assert [codec.mime for codec in ann.joined.room.enabled_codecs] == enabled
    await ann.send(add_track=rtc.AddTrackRequest(cid=MICROPHONE, type=models.AUDIO, source=models.MICROPHONE))
    requested = rtc.SimulcastCodec(codec="vp8", cid=CAMERA)
    await ann.send(
        add_track=rtc.AddTrackRequest(cid=CAMERA, type=models.VIDEO, layers=CAMERA_LAYERS, simulcast_codecs=[requested])
    )
    await ann.send(offer=offer("chromium-publish.sdp"))
    (answer,) = ann.of("answer")
    assert len(answer.mid_to_track_id) == 2
    parsed = parse(answer.sdp)
    names = [{each.name.lower() for each in section.profile.rtpmaps} for section in parsed.sections[2:4]]
    assert names == [{"opus"}, {"h264", "rtx"}]
    admitted = [parameters.codecs for _, parameters in sdp_call.engine.tracks.values()]
    assert admitted == [{Codec.OPUS}, {Codec.H264}]


async def test_an_m_section_with_none_of_the_rooms_codecs_is_not_taken(sdp_call: Call) -> None:
    sdp_call.rooms.create("hall", RoomOptions(enabled_codecs=("audio/opus",)))
    ann = await sdp_call.join("ann", publisher_offer=None)
    await ann.send(add_track=rtc.AddTrackRequest(cid=CAMERA, type=models.VIDEO, layers=CAMERA_LAYERS))
    await ann.send(offer=offer("chromium-publish.sdp"))
    (answer,) = ann.of("answer")
    assert dict(answer.mid_to_track_id) == {}
    assert sdp_call.engine.tracks == {}


@pytest.mark.parametrize(
    ("client", "streams"),
    [
        (models.ClientInfo(protocol=17), ["camera", "camera"]),
        (models.ClientInfo(protocol=9), ["", ""]),
        (models.ClientInfo(protocol=17, browser="Firefox"), ["", ""]),
    ],
)
async def test_sound_and_picture_share_a_stream_where_that_is_wanted(
    sdp_call: Call, client: models.ClientInfo, streams: list[str]
) -> None:
    sdp_call.rooms.create("hall", RoomOptions(sync_streams=True))
    ann = await sdp_call.join("ann", publisher_offer=None)
    sources = ((MICROPHONE, models.AUDIO, models.MICROPHONE), (CAMERA, models.VIDEO, models.CAMERA))
    for cid, kind, source in sources:
        await ann.send(add_track=rtc.AddTrackRequest(cid=cid, type=kind, source=source, layers=CAMERA_LAYERS))
    sids = [answer.track.sid for answer in ann.of("track_published")]
    await ann.send(offer=offer("chromium-publish.sdp"))
    bob = await sdp_call.join("bob", publisher_offer=offer("chromium-join.sdp"), client_info=client)
    (answer,) = bob.of("answer")
    for sid, stream in zip(sids, streams, strict=True):
        assert f"a=msid:{ann.sid}|{stream or sid} {sid}\r\n" in answer.sdp
