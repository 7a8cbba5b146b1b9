"""What LiveKit's keys about media become, and that it reaches the engine and the rooms."""

from dataclasses import replace

import pytest
from livekit.protocol import rtc

from signaling.config.configuration import Config, Flags, load_config
from signaling.config.document import ConfigError
from signaling.config.media_options import MediaOptions
from signaling.rooms.dynacast import PAUSE_DELAY_S
from tests.signaling.support.call import Call

KEYS = "keys: {devkey: secret}\n"


def load(text: str) -> Config:
    return load_config(Flags(), {"LIVEKIT_CONFIG": KEYS + text})


def test_the_defaults_are_livekits() -> None:
    assert load("").media == MediaOptions(allow_pause=False, dynacast_pause_delay_s=PAUSE_DELAY_S)


def test_the_keys_are_acted_on() -> None:
    config = load("rtc: {congestion_control: {allow_pause: true}}\nvideo: {dynacast_pause_delay: 1m0.5s}\n")
    assert config.media == MediaOptions(allow_pause=True, dynacast_pause_delay_s=60.5)
    assert config.ignored == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("video:\n  dynacast_pause_delay: soon", "3: video.dynacast_pause_delay"),
        ("video:\n  dynacast_pause_delay: 2h", "longer than an hour"),
        ("rtc:\n  congestion_control: {allow_pause: perhaps}", "3: rtc.congestion_control.allow_pause"),
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
