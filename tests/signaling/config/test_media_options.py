"""What LiveKit's keys about media become, and that it reaches the engine and the rooms."""

from dataclasses import replace

import pytest
from livekit.protocol import rtc

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.media_options import MediaOptions
from signaling.rooms.dynacast import DENIED_DELAY_S, PAUSE_DELAY_S
from tests.signaling.support.call import Call

KEYS = "keys: {devkey: secret}\n"


def load(text: str) -> Config:
    return load_config(Flags(), {"LIVEKIT_CONFIG": KEYS + text})


def test_the_defaults_are_livekits_but_for_key_frames() -> None:
    config = load("")
    assert config.media == MediaOptions()
    assert config.media == MediaOptions(True, False, (0, 0, 0), False, PAUSE_DELAY_S, DENIED_DELAY_S)
    assert config.room.playout_delay_ms is None


def test_the_keys_are_acted_on() -> None:
    config = load(
        "rtc:\n  congestion_control: {enabled: false, allow_pause: true}\n"
        "  pli_throttle: {low_quality: 750ms, mid_quality: 1s, high_quality: 1m0.5s}\n"
        "audio: {enable_loss_proxying: true}\n"
        "video: {dynacast_pause_delay: 2s, dynacast_denied_delay: 30s}\n"
        "room: {playout_delay: {enabled: true, min: 100, max: 2000}}\n"
    )
    assert config.media == MediaOptions(False, True, (750, 1_000, 60_500), True, 2.0, 30.0)
    assert config.room.playout_delay_ms == (100, 2_000)
    assert config.ignored == ()


@pytest.mark.parametrize(
    ("text", "limits"),
    [("min: 50", (50, 10_000)), ("max: 70", (0, 70)), ("min: 90, max: 70", (70, 70))],
)
def test_playout_delays_have_bounds_that_fit(text: str, limits: tuple[int, int]) -> None:
    assert load(f"room: {{playout_delay: {{enabled: true, {text}}}}}").room.playout_delay_ms == limits
    assert load(f"room: {{playout_delay: {{{text}}}}}").room.playout_delay_ms is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rtc:\n  pli_throttle: {low_quality: soon}", "3: rtc.pli_throttle.low_quality"),
        ("rtc:\n  pli_throttle: {low_quality: 2h}", "longer than an hour"),
        ("room:\n  playout_delay: {enabled: true, max: 40960}", "3: room.playout_delay.max"),
        ("room:\n  playout_delay: {enabled: true, min: -1}", "3: room.playout_delay.min"),
        ("rtc:\n  congestion_control: {enabled: perhaps}", "3: rtc.congestion_control.enabled"),
        ("audio:\n  enable_loss_proxying: 2", "3: audio.enable_loss_proxying"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load(text)


def configure(call: Call, media: MediaOptions) -> None:
    call.rooms.node.config = replace(call.rooms.node.config, media=media)


@pytest.mark.parametrize(("word", "expected"), [(None, True), (False, False), (True, True)])
async def test_a_clients_own_word_on_pausing_counts_more_than_the_configuration(
    call: Call, word: bool | None, expected: bool
) -> None:
    configure(call, MediaOptions(allow_pause=True))
    bob = await call.join("bob", allow_pause=word)
    assert [call.engine.may_pause[each] for each in bob.participant.renegotiation.transports] == [expected]


async def test_the_dynacast_delay_is_the_configurations(call: Call) -> None:
    configure(call, MediaOptions(dynacast_pause_delay_s=1.0))
    ann = await call.join("ann")
    sid = await ann.publish("cam", "video")
    bob = await call.join("bob")
    await bob.renegotiate()
    ann.forget()
    await bob.send(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], disabled=True))
    await call.pass_time(0.9)
    assert ann.of("subscribed_quality_update") == []
    await call.pass_time(0.2)
    assert len(ann.of("subscribed_quality_update")) == 1


async def test_a_rooms_playout_delay_reaches_the_subscriptions_of_video(call: Call) -> None:
    ann = await call.join("ann")
    call.room._description.options = replace(call.room.options, playout_delay_ms=(100, 2_000))
    for kind in ("video", "audio"):
        await ann.publish(kind, kind)
    bob = await call.join("bob")
    await bob.renegotiate()
    found = {parameters.playout_delay_ms for _, _, parameters in call.engine.subscriptions.values()}
    assert found == {None, (100, 2_000)}


async def test_a_client_with_two_connections_receives_beside_where_it_publishes(call: Call) -> None:
    bob = await call.join("bob", single_pc=False)
    down = bob.participant.data_transport
    (up,) = [each for each in bob.participant.renegotiation.transports if each != down]
    assert call.engine.beside == {up: None, down: up}
