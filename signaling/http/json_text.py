"""Reads protojson that a client or a caller of the API sent, with bounds that hold before anything is parsed.

Who calls it: `connection.py` for text frames, and the server API for bodies. Both spellings of names are read. Unknown
fields and unknown names of enums are left out.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from signaling.http.bounds import check_json_text
from signaling.texts import encodable

MAX_JSON_DEPTH = 50
"""Nesting of a JSON message; LiveKit's own messages stay below ten."""
JSON_ERRORS = json_format.ParseError, ValueError, TypeError, AttributeError, OverflowError, RecursionError
"""What `read_json` raises for a text that is no such message, as for `Infinity` in the place of an enum's name.
`TooManyEntries` is a ValueError too."""

Read = TypeVar("Read", bound=Message)


def read_json(text: str, into: Read, check: Callable[[str, dict[str, Any]], None] | None = None) -> Read:
    """Read an object into an empty message, and return this.

    Args:
        text: was UTF-8.
        into: the message.
        check: looks at the text and its object before the message is filled, and raises one of `JSON_ERRORS`.

    Raises:
        TooManyEntries: it has too many entries.
        JSON_ERRORS: it is no such object.
    """
    check_json_text(text)
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if check is not None:
        check(text, value)
    # Only an escape can spell half a character.
    whole = encodable(value) if "\\ud" in text or "\\uD" in text else value
    json_format.ParseDict(whole, into, ignore_unknown_fields=True, max_recursion_depth=MAX_JSON_DEPTH)
    return into
