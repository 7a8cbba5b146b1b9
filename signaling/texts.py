"""Texts that come from JSON, made fit for UTF-8.

Who calls it: whoever parses JSON of a client (`tokens.py`, `join.py`, `connection.py`), at once, so that nothing behind
has to expect a text that cannot be encoded.
"""

import re
from typing import TypeVar, cast

REPLACEMENT = "\ufffd"
"""What stands for half a character, as in Go's JSON and so in livekit-server."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Pairs have become one character when JSON was parsed, so what is left is alone."""

Value = TypeVar("Value")


def encodable(value: Value) -> Value:
    """Return a JSON value in which lone surrogates, in texts and in keys, are replaced by `REPLACEMENT`.

    JSON can spell half a UTF-16 pair (RFC 8259 section 8.2): a name that was cut inside an emoji is one. UTF-8 cannot.

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
