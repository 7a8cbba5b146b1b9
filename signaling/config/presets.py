"""Named settings of rooms (LiveKit's `room.room_configurations`), which tokens and calls of the server API refer to.

LiveKit's file spells their keys in lower case without underscores; those of the protobuf files are read as well.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from livekit.protocol.room import RoomConfiguration

IGNORED = frozenset(("name", "egress"))
"""Fields that have no effect here: the preset has a name already, and nobody records."""

Presets = Mapping[str, RoomConfiguration]


def parse_presets(value: object) -> dict[str, RoomConfiguration]:
    """Read a mapping of names to settings, all of whose scalars are texts.

    Raises:
        ValueError: a key is unknown, or a value makes no sense.
    """
    if not isinstance(value, dict) or not all(isinstance(settings, dict) for settings in value.values()):
        raise ValueError("must be a mapping of names to settings")
    return {str(name): _preset(str(name), settings) for name, settings in value.items()}


def _preset(name: str, settings: dict[str, Any]) -> RoomConfiguration:
    preset = RoomConfiguration()
    try:
        json_format.ParseDict(_as_json(RoomConfiguration.DESCRIPTOR, settings), preset)
    except (json_format.ParseError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    return preset


def _as_json(descriptor: Any, settings: dict[str, Any]) -> dict[str, Any]:
    fields = {field.name.replace("_", ""): field for field in descriptor.fields}
    result: dict[str, Any] = {}
    for key, value in settings.items():
        field = fields.get(key.replace("_", "").lower())
        if field is None:
            raise ValueError(f"unknown key {key}")
        if field.name not in IGNORED:
            result[field.name] = _value(field, value)
    return result


def _value(field: FieldDescriptor, value: Any) -> Any:
    message: Descriptor | None = field.message_type
    if field.type == FieldDescriptor.TYPE_BOOL and value in ("true", "false"):
        return value == "true"
    if message is None or message.GetOptions().map_entry:
        return value
    if isinstance(value, list):
        return [_as_json(message, item) if isinstance(item, dict) else item for item in value]
    return _as_json(message, value) if isinstance(value, dict) else value
