"""Requests and answers of API calls as bytes: protobuf, or JSON in the form that livekit-server has.

JSON is read in both spellings of names. It is written with the names of the protobuf files, with zero values, and with
null for messages that are absent. An answer that is a list is written entry by entry, so that others can have their
turn in between.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Listing:
    """An answer that is one list. Each entry is described when its turn to be written has come."""

    answer: type[Message]
    """The message, which has one field, and that is repeated."""
    entries: Iterable[Message | None]
    """Must bear that time passes between two entries. Each is read before the next one is asked for. None stands for
    something that was looked at and is not in the list."""

    @property
    def _field(self) -> str:
        return str(self.answer.DESCRIPTOR.fields[0].name)

    def pieces(self, encoding: Encoding) -> Iterator[bytes]:
        """Yield the answer in pieces, each of which has one entry at most."""
        if encoding is Encoding.PROTOBUF:
            # Messages that follow each other are read as one, in which repeated fields are joined.
            for entry in self.entries:
                yield b"" if entry is None else self.answer(**{self._field: [entry]}).SerializeToString()
            return
        before = f'{{"{self._field}":['.encode()
        for entry in self.entries:
            if entry is None:
                yield b""
                continue
            yield before + _json(entry)
            before = b","
        yield b"]}" if before == b"," else before + b"]}"

    def whole(self) -> Any:
        """Return the answer as one message."""
        return self.answer(**{self._field: filter(None, self.entries)})


Answer = Message | Listing


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


def pieces(answer: Answer, encoding: Encoding) -> Iterator[bytes]:
    """Write an answer in pieces. Others may have their turn between two of them."""
    if isinstance(answer, Listing):
        yield from answer.pieces(encoding)
    else:
        yield answer.SerializeToString() if encoding is Encoding.PROTOBUF else _json(answer)


def _json(message: Message) -> bytes:
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
