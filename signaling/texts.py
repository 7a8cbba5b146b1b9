"""Makes texts from JSON encodable as UTF-8.

Who calls it: all code that parses a client's JSON (`tokens.py`, `join.py`, `connection.py`), at once, so that no other
code meets a text that cannot be encoded.
"""

import re
from typing import TypeVar, cast

REPLACEMENT = "\ufffd"
"""Replaces half a character, as in Go's JSON and so in livekit-server."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Matches a surrogate without its pair: JSON's parser has joined pairs to one character."""

Value = TypeVar("Value")


def encodable(value: Value) -> Value:
    """Return a JSON value in which lone surrogates, in texts and in keys, are replaced by `REPLACEMENT`.

    JSON can escape half a UTF-16 pair (RFC 8259 section 8.2), as in a name that was cut inside an emoji. UTF-8 has no
    form for it.

    Raises:
        RecursionError: the value is nested deeper than Python's stack.
    """
    return cast("Value", _encodable(value))


def _encodable(value: object) -> object:
    match value:
        case str():
            return value if value.isascii() else _LONE_SURROGATE.sub(REPLACEMENT, value)
        case list():
            return [_encodable(item) for item in value]
        case dict():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value
