"""Settings of rooms that calls of the server API and tokens bring, alone or with a configured preset."""

from livekit.protocol.room import CreateRoomRequest, RoomConfiguration

from signaling.config.presets import Presets

RoomSettings = CreateRoomRequest | RoomConfiguration
"""What a call or a token says about a room. Zero and empty mean that it says nothing."""

FIELDS = (
    "empty_timeout",
    "departure_timeout",
    "max_participants",
    "metadata",
    "min_playout_delay",
    "max_playout_delay",
    "sync_streams",
)


class UnknownPreset(Exception):
    """There is no preset of this name."""


def with_preset(settings: RoomSettings | None, name: str, presets: Presets) -> RoomSettings | None:
    """Return settings that take what they do not say from a preset; as they are, if no preset is named.

    Raises:
        UnknownPreset: there is none of this name.
    """
    if not name:
        return settings
    preset = presets.get(name)
    if preset is None:
        raise UnknownPreset
    merged = RoomConfiguration()
    merged.CopyFrom(preset)
    if settings is not None:
        for field in FIELDS:
            if value := getattr(settings, field):
                setattr(merged, field, value)
        if settings.agents:
            del merged.agents[:]
            merged.agents.extend(settings.agents)
    return merged
