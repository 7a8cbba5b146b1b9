"""Requests and answers of API calls as bytes: protobuf, or JSON in the form that livekit-server has.

JSON is read in both spellings of names. It is written with the names of the protobuf files, with zero values, and with
null for messages that are absent.
"""

import json
from enum import Enum
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from signaling.api.errors import ApiError
from signaling.http.bounds import TooManyEntries
from signaling.http.json_text import JSON_ERRORS, read_json


class Encoding(Enum):
    """How a request, and so its answer, is encoded. The value is the content type."""

    PROTOBUF = "application/protobuf"
    JSON = "application/json"

    @classmethod
    def of(cls, content_type: str) -> "Encoding | None":
        """Return the encoding of a content type with or without parameters (RFC 9110 section 8.3); None: another."""
        bare = content_type.partition(";")[0].strip().lower()
        return next((each for each in cls if each.value == bare), None)


def decode(body: bytes, into: Message, encoding: Encoding) -> None:
    """Read a request into an empty message. Fields and enum names that are unknown are left out.

    Raises:
        ApiError: `malformed`: it is not in this encoding; `invalid_argument`: it has too many entries.
    """
    try:
        if encoding is Encoding.PROTOBUF:
            into.ParseFromString(body)
        else:
            read_json(body.decode(), into)
    except TooManyEntries as error:
        raise ApiError("invalid_argument", str(error)) from error
    except (DecodeError, *JSON_ERRORS) as error:
        raise ApiError("malformed", f"the {encoding.name.lower()} request could not be decoded") from error


def encode(message: Message, encoding: Encoding) -> bytes:
    """Write an answer."""
    if encoding is Encoding.PROTOBUF:
        return message.SerializeToString()
    values = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _add_nulls(message.DESCRIPTOR, values)
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def _add_nulls(descriptor: Any, values: dict[str, Any]) -> None:
    """Add the names of messages that are absent, except those of which there can be one only."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None:
            continue
        if field.is_repeated:
            for each in values.get(field.name, ()):
                if isinstance(each, dict):  # and no key of a map
                    _add_nulls(inner, each)
        elif isinstance(value := values.get(field.name), dict):
            _add_nulls(inner, value)
        elif value is None and field.containing_oneof is None:
            values[field.name] = None
