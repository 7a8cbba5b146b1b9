"""Subscribing: who gets which track, in which order it is told, and with which layers."""

import pytest
from livekit.protocol import models, rtc

from sfu.events import SubscriptionPaused, SubscriptionStarted
from sfu.parameters import SubscriptionId
from signaling.participants.renegotiation import ANSWER_TIMEOUT_S
from tests.signaling.support.call import ALL_VIDEO, CAMERA_LAYERS, Call, Client, sdp


def subscription_of(call: Call, client: Client, sid: str) -> SubscriptionId:
    subscription = client.participant.subscriptions.active[sid].id
    assert subscription is not None
    assert subscription in call.engine.subscriptions
    return subscription


async def test_update_comes_before_the_sdp_that_carries_the_track(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    bob.forget()
    sid = await ann.publish("mic", "audio")
    await bob.renegotiate()
    kinds = bob.kinds()
    assert kinds.index("update") < kinds.index("media_sections_requirement") < kinds.index("answer")
    assert sid in bob.of("answer")[-1].mid_to_track_id.values()
    subscription_of(call, bob, sid)


async def test_newcomer_gets_what_is_there_with_its_first_answer(call: Call) -> None:
    ann = await call.join("ann")
    sids = {await ann.publish("mic", "audio"), await ann.publish("cam", "video")}
    bob = await call.join("bob")
    assert set(bob.of("answer")[0].mid_to_track_id.values()) == sids


async def test_client_is_asked_for_as_many_sections_as_are_missing(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for number in range(5):
        await ann.publish(f"mic{number}", "audio")
    await call.collect()
    requirement = bob.of("media_sections_requirement")[-1]
    assert (requirement.num_audios, requirement.num_videos) == (2, 0)
    await bob.renegotiate()
    assert len(bob.of("answer")[-1].mid_to_track_id) == 5


async def test_changes_that_come_together_are_negotiated_together(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    bob.forget()
    for number in range(3):
        await ann.publish(f"mic{number}", "audio")
    await call.collect()
    assert len(bob.of("media_sections_requirement")) == 1


async def test_client_is_asked_again_when_it_did_not_offer(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.publish("mic", "audio")
    await call.collect()
    bob.forget()
    await call.pass_time(ANSWER_TIMEOUT_S + 1)
    assert len(bob.of("media_sections_requirement")) == 1


async def test_client_that_never_adds_sections_is_not_asked_for_ever(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for number in range(5):
        await ann.publish(f"mic{number}", "audio")
    await ann.connect()
    await bob.connect()
    for _ in range(20):
        await call.collect()
        await bob.offer()
        await call.pass_time(ANSWER_TIMEOUT_S + 1)
    assert 2 <= len(bob.of("media_sections_requirement")) < 10


async def test_an_offer_that_crosses_the_requirement_does_not_ask_for_the_sections_twice(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for number in range(5):
        await ann.publish(f"mic{number}", "audio")
    await call.collect()
    bob.forget()
    await bob.publish("own", "audio")  # offered before the requirement was read
    await call.collect()
    assert not bob.of("media_sections_requirement")
    bob.sections += [{"mid": f"n{number}", "kind": "audio", "codecs": ["opus"]} for number in range(2)]
    await bob.offer()
    assert len(bob.of("answer")[-1].mid_to_track_id) == 6
    await ann.publish("mic5", "audio")
    await call.collect()
    assert [each.num_audios for each in bob.of("media_sections_requirement")] == [1]


async def test_a_client_that_publishes_where_it_received_owes_no_section_for_that(call: Call) -> None:
    """Clients that add a track to the first m-section that sends nothing yet: pion, and browsers with addTrack."""
    ann, bob = await call.join("ann"), await call.join("bob")
    for number in range(5):
        await ann.publish(f"mic{number}", "audio")
    await call.collect()
    (requirement,) = bob.of("media_sections_requirement")
    assert requirement.num_audios == 2
    await bob.send(add_track=rtc.AddTrackRequest(cid="own", type=models.AUDIO, source=models.MICROPHONE))
    reused = next(section for section in bob.sections if section["kind"] == "audio")
    reused |= {"cid": "own", "layers": 1}
    bob.sections += [{"mid": f"n{number}", "kind": "audio", "codecs": ["opus"]} for number in range(2)]
    bob.forget()
    await bob.offer()
    await call.collect()
    assert [each.num_audios for each in bob.of("media_sections_requirement")] == [1]


async def test_client_without_a_first_offer_is_asked_for_nothing(call: Call) -> None:
    ann = await call.join("ann")
    await ann.publish("mic", "audio")
    bob = await call.join("bob", publisher_offer=None)
    await call.collect()
    assert not bob.of("media_sections_requirement")
    await bob.offer()
    assert len(bob.of("answer")[-1].mid_to_track_id) == 1


async def test_dual_client_gets_offers_one_at_a_time(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob", single_pc=False)
    assert [offer.id for offer in bob.of("offer")] == [1]
    sid = await ann.publish("mic", "audio")
    await call.collect()
    assert len(bob.of("offer")) == 1, "an offer is outstanding"
    await bob.send(answer=rtc.SessionDescription(type="answer", sdp=sdp(), id=1))
    await call.collect()
    offer = bob.of("offer")[-1]
    assert offer.id == 2
    assert list(offer.mid_to_track_id.values()) == [sid]
    await bob.send(answer=rtc.SessionDescription(type="answer", sdp=sdp(), id=2))
    subscription_of(call, bob, sid)


async def test_media_waits_for_the_answer_of_a_dual_client(call: Call) -> None:
    ann = await call.join("ann")
    sids = [await ann.publish("mic", "audio"), await ann.publish("cam", "video")]
    bob = await call.join("bob", single_pc=False)
    mic, cam = (subscription_of(call, bob, sid) for sid in sids)
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sids[0]], disabled=True))
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sids[1]], quality=models.HIGH))
    assert (call.engine.paused[mic], call.engine.paused[cam]) == (True, True)
    await bob.send(answer=rtc.SessionDescription(type="answer", sdp=sdp(), id=1))
    assert (call.engine.paused[mic], call.engine.paused[cam]) == (True, False)


async def test_media_of_a_single_client_goes_with_our_answer(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    bob = await call.join("bob")
    subscription = subscription_of(call, bob, sid)
    assert not call.engine.subscriptions[subscription][2].paused
    assert not call.engine.paused[subscription]


async def test_late_answer_to_an_earlier_offer_is_ignored(call: Call) -> None:
    bob = await call.join("bob", single_pc=False)
    await bob.send(answer=rtc.SessionDescription(type="answer", sdp="not even SDP", id=77))
    assert not bob.of("leave")


async def test_dual_client_that_does_not_answer_has_to_start_again(call: Call) -> None:
    bob = await call.join("bob", single_pc=False)
    await call.pass_time(ANSWER_TIMEOUT_S + 1)
    assert bob.of("leave")[0].action == rtc.LeaveRequest.RECONNECT


async def test_without_auto_subscribe_only_chosen_tracks_are_sent(call: Call) -> None:
    ann = await call.join("ann")
    first, second = await ann.publish("mic", "audio"), await ann.publish("cam", "video")
    bob = await call.join("bob", auto_subscribe=False)
    assert not bob.participant.subscriptions.active
    tracks = models.ParticipantTracks(participant_sid=ann.sid, track_sids=[second])
    await bob.send(subscription=rtc.UpdateSubscription(subscribe=True, participant_tracks=[tracks]))
    await bob.renegotiate()
    subscription_of(call, bob, second)
    assert first not in bob.participant.subscriptions.active


async def test_unsubscribed_track_stops_at_once(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    bob = await call.join("bob")
    subscription_of(call, bob, sid)
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=False))
    assert call.engine.usage()["subscriptions"] == 0
    assert not call.rooms.node.subscribers
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=True))
    await bob.renegotiate()
    subscription_of(call, bob, sid)


async def test_unknown_track_is_answered_and_served_when_it_appears(call: Call) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob", auto_subscribe=False)
    await ann.send(add_track=rtc.AddTrackRequest(cid="mic", type=models.AUDIO, source=models.MICROPHONE))
    sid = ann.of("track_published")[-1].track.sid
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=True))
    (response,) = bob.of("subscription_response")
    assert (response.track_sid, response.err) == (sid, models.SE_TRACK_NOTFOUND)
    assert await ann.publish("mic", "audio", start=False) == sid
    await bob.renegotiate()
    subscription_of(call, bob, sid)


async def test_nobody_is_subscribed_to_own_tracks(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    await ann.send(subscription=rtc.UpdateSubscription(track_sids=[sid], subscribe=True))
    await ann.renegotiate()
    assert not ann.participant.subscriptions.active


async def test_publisher_hears_once_that_somebody_receives_its_track(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    for name in ("bob", "cleo"):
        client = await call.join(name)
        await call.emit(SubscriptionStarted(subscription_of(call, client, sid)))
    assert [message.track_sid for message in ann.of("track_subscribed")] == [sid]


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"quality": models.LOW}, (0, 3)),
        ({"quality": models.MEDIUM}, (1, 3)),
        ({"quality": models.HIGH}, (2, 3)),
        ({"width": 320, "height": 180}, (0, 3)),
        ({"width": 330, "height": 195}, (0, 3)),
        ({"width": 400, "height": 240}, (1, 3)),
        ({"width": 1280, "height": 720}, (2, 3)),
        ({"width": 4000, "height": 3000}, (2, 3)),
        ({"width": 100, "height": 50, "quality": models.HIGH}, (0, 3)),
        ({"quality": models.HIGH, "fps": 30}, (2, 3)),
        ({"quality": models.HIGH, "fps": 15}, (2, 1)),
        ({"quality": models.HIGH, "fps": 5}, (2, 0)),
    ],
)
async def test_track_settings_choose_layers(call: Call, settings: dict[str, int], layers: tuple[int, int]) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video")
    bob = await call.join("bob")
    subscription = subscription_of(call, bob, sid)
    assert call.engine.layers[subscription] == (2, 3)
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], **settings))  # type: ignore[arg-type]
    assert call.engine.layers[subscription] == layers


async def test_priority_and_dimensions_decide_whose_picture_suffers_last(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("cam", "video")
    settings = rtc.UpdateTrackSettings(track_sids=[sid], width=640, height=360, priority=2)
    await bob.send(track_setting=settings)
    await bob.renegotiate()
    subscription = subscription_of(call, bob, sid)
    assert call.engine.importance[subscription] == (2, 640 * 360)
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], quality=models.HIGH, priority=1))
    assert call.engine.importance[subscription] == (1, 0)


@pytest.mark.parametrize(("source", "screen"), [(models.CAMERA, False), (models.SCREEN_SHARE, True)])
async def test_the_engine_is_told_what_is_a_shared_screen(call: Call, source: int, screen: bool) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("video", "video", source=source)
    assert call.engine.tracks[ann.engine_track(sid)][1].screen is screen


@pytest.mark.parametrize(("single_pc", "allow_pause"), [(True, True), (False, True), (True, False)])
async def test_a_client_says_whether_its_videos_may_be_paused_and_hears_when_they_are(
    call: Call, single_pc: bool, allow_pause: bool
) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video")
    bob = await call.join("bob", single_pc=single_pc, allow_pause=allow_pause)
    transports = bob.participant.renegotiation.transports
    assert [call.engine.may_pause[each] for each in transports] == len(transports) * [allow_pause]
    subscription = subscription_of(call, bob, sid)
    for paused, state in ((True, rtc.PAUSED), (False, rtc.ACTIVE)):
        await call.emit(SubscriptionPaused(subscription, paused))
        (info,) = bob.of("stream_state_update")[-1].stream_states
        assert (info.participant_sid, info.track_sid, info.state) == (ann.sid, sid, state)


async def test_adaptive_client_starts_with_the_lowest_layer(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video")
    bob = await call.join("bob", adaptive_stream=True)
    subscription = subscription_of(call, bob, sid)
    assert call.engine.layers[subscription] == (0, 3)
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], width=1280, height=720))
    assert call.engine.layers[subscription] == (2, 3)


async def test_portrait_video_is_compared_on_its_width(call: Call) -> None:
    ann = await call.join("ann")
    layers = [
        models.VideoLayer(quality=quality, width=size, height=size * 2)
        for quality, size in ((models.LOW, 180), (models.MEDIUM, 360), (models.HIGH, 720))
    ]
    sid = await ann.publish("cam", "video", layers=layers, width=720, height=1440)
    bob = await call.join("bob")
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], width=180, height=700))
    assert call.engine.layers[subscription_of(call, bob, sid)] == (0, 3)


@pytest.mark.parametrize("settings", [{"disabled": True}, {"quality": models.OFF}])
async def test_disabled_track_is_paused_and_comes_back(call: Call, settings: dict[str, int]) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video")
    bob = await call.join("bob")
    subscription = subscription_of(call, bob, sid)
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], **settings))  # type: ignore[arg-type]
    assert call.engine.paused[subscription]
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], quality=models.HIGH))
    assert not call.engine.paused[subscription]


async def test_simulated_bandwidth_limits_all_videos_to_the_best_layer_of_which_all_fit(call: Call) -> None:
    rates = {models.HIGH: 1_700_000, models.MEDIUM: 450_000, models.LOW: 150_000}
    layers = [
        models.VideoLayer(quality=layer.quality, width=layer.width, height=layer.height, bitrate=rates[layer.quality])
        for layer in CAMERA_LAYERS
    ]
    ann = await call.join("ann")
    sids = [await ann.publish(cid, "video", layers=layers) for cid in ("cam", "cam2")]
    bob = await call.join("bob")

    def sent() -> list[int]:
        return [call.engine.layers[subscription_of(call, bob, sid)][0] for sid in sids]

    for capacity, layer in ((900_000, 1), (899_999, 0), (10_000, 0), (3_400_000, 2), (900_000, 1), (0, 2)):
        await bob.send(simulate=rtc.SimulateScenario(subscriber_bandwidth=capacity))
        assert sent() == [layer, layer]
    assert not bob.of("request_response"), "it is not refused"
    await bob.send(simulate=rtc.SimulateScenario(subscriber_bandwidth=900_000))
    sids.append(await ann.publish("cam3", "video", layers=layers))
    await bob.renegotiate()
    assert sent() == [0, 0, 0], "what begins later has its share too"
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=sids[:1], quality=models.HIGH))
    assert sent() == [0, 0, 0], "what is preferred changes nothing about it"


async def test_settings_sent_before_the_negotiation_are_kept_for_it(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("cam", "video")
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], disabled=True, quality=models.LOW))
    await bob.renegotiate()
    subscription = subscription_of(call, bob, sid)
    assert call.engine.layers[subscription] == (0, 3)
    assert call.engine.paused[subscription]


@pytest.mark.parametrize("single_pc", [True, False])
async def test_the_first_layer_sent_is_one_that_was_asked_for(call: Call, single_pc: bool) -> None:
    ann = await call.join("ann")
    bob = await call.join("bob", single_pc=single_pc)
    await bob.send(answer=rtc.SessionDescription(type="answer", sdp=sdp(), id=1))
    sid = await ann.publish("cam", "video")
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], width=320, height=180, fps=15))
    await bob.renegotiate()
    subscription = subscription_of(call, bob, sid)
    parameters = call.engine.subscriptions[subscription][2]
    assert (parameters.spatial, parameters.temporal) == (0, 1)


async def test_the_first_layer_of_an_adaptive_client_is_the_lowest(call: Call) -> None:
    ann = await call.join("ann")
    sids = [await ann.publish("cam", "video"), await ann.publish("mic", "audio")]
    bob = await call.join("bob", adaptive_stream=True)
    cam, mic = (call.engine.subscriptions[subscription_of(call, bob, sid)][2] for sid in sids)
    assert (cam.spatial, cam.temporal) == (0, 3)
    assert (mic.spatial, mic.temporal) == (2, 3)


GO, JS = models.ClientInfo(sdk=models.ClientInfo.GO, protocol=17), models.ClientInfo(sdk=models.ClientInfo.JS)


@pytest.mark.parametrize(
    ("client_info", "muted", "encryption", "silence"),
    [
        (GO, True, models.Encryption.NONE, True),
        (GO, False, models.Encryption.NONE, False),
        (GO, True, models.Encryption.GCM, False),
        (GO, True, models.Encryption.CUSTOM, False),
        (JS, True, models.Encryption.NONE, False),
    ],
)
@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_a_muted_track_is_shown_by_silence_to_clients_that_wait_for_a_packet(
    call: Call, kind: str, client_info: models.ClientInfo, muted: bool, encryption: int, silence: bool
) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("track", kind, encryption=encryption)
    await ann.send(mute=rtc.MuteTrackRequest(sid=sid, muted=muted))
    bob = await call.join("bob", client_info=client_info)
    assert call.engine.subscriptions[subscription_of(call, bob, sid)][2].silence is silence


async def test_client_without_the_codec_is_told_when_there_is_no_backup(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video", simulcast_codecs=[rtc.SimulcastCodec(codec="h264", cid="cam")])
    sections = [{"mid": "v", "kind": "video", "codecs": [name for name in ALL_VIDEO if name != "h264"]}]
    offer = rtc.SessionDescription(type="offer", sdp=sdp(*sections), id=1)
    bob = await call.join("bob", publisher_offer=offer)
    (response,) = bob.of("subscription_response")
    assert (response.track_sid, response.err) == (sid, models.SE_CODEC_UNSUPPORTED)


async def test_who_leaves_takes_its_subscriptions_along(call: Call) -> None:
    ann = await call.join("ann")
    await ann.publish("cam", "video")
    bob = await call.join("bob")
    await bob.send(leave=rtc.LeaveRequest())
    assert call.engine.usage() == {"transports": 1, "tracks": 1, "subscriptions": 0}
    assert not next(iter(call.room.tracks.values())).demand
