"""signaling/config/presets.py: named settings of rooms as LiveKit's file has them."""

from pathlib import Path

import pytest
from livekit.protocol.room import RoomConfiguration

from signaling.config.configuration import Flags, load_config
from signaling.config.document import ConfigError

TEXT = """
keys: {a: b}
room:
  room_configurations:
    small:
      emptytimeout: 10
      max_participants: 4
      syncStreams: true
      agents:
        - agentname: scribe
          metadata: "007"
      egress: {room: {}}
    large: {}
"""


def test_presets_are_read_in_every_spelling() -> None:
    presets = load_config(Flags(), {"LIVEKIT_CONFIG": TEXT}).room_presets
    expected = RoomConfiguration(empty_timeout=10, max_participants=4, sync_streams=True)
    expected.agents.add(agent_name="scribe", metadata="007")
    assert dict(presets) == {"small": expected, "large": RoomConfiguration()}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("[]", "must be a mapping of names to settings"),
        ("{small: 3}", "must be a mapping of names to settings"),
        ("{small: {emptytime: 3}}", "small: unknown key emptytime"),
        ("{small: {emptytimeout: soon}}", "small: .*empty_timeout"),
        ("{small: {agents: [{name: x}]}}", "small: unknown key name"),
        ("{small: {agents: [x]}}", "small: "),
    ],
)
def test_what_makes_no_sense_is_an_error_with_its_line(tmp_path: Path, settings: str, text: str) -> None:
    file = tmp_path / "livekit.yaml"
    file.write_text(f"keys: {{a: b}}\nroom:\n  room_configurations: {settings}\n")
    with pytest.raises(ConfigError, match=f"livekit.yaml:3: room.room_configurations: {text}"):
        load_config(Flags(config=file), {})
