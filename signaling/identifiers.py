"""Random identifiers with LiveKit's prefixes, some of which clients read."""

import secrets

from livekit.protocol.models import CAMERA, MICROPHONE, SCREEN_SHARE, SCREEN_SHARE_AUDIO, VIDEO, TrackSource, TrackType

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 12
"""Characters of the random part. 57^12 is about 2^70, so there are no collisions."""
_IDENTIFIERS = len(_ALPHABET) ** _RANDOM_CHARACTERS
_SOURCE_LETTERS: dict[TrackSource, str] = {CAMERA: "C", MICROPHONE: "M", SCREEN_SHARE: "S", SCREEN_SHARE_AUDIO: "s"}


def _random(prefix: str) -> str:
    # One number, read digit by digit: a random number for each character costs twelve times as much.
    number, characters = secrets.randbelow(_IDENTIFIERS), prefix
    for _ in range(_RANDOM_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        characters += _ALPHABET[digit]
    return characters


def room_sid() -> str:
    """Return a new room sid, `RM_...`."""
    return _random("RM_")


def participant_sid() -> str:
    """Return a new participant sid, `PA_...`."""
    return _random("PA_")


def node_id() -> str:
    """Return an id for this process, `ND_...`."""
    return _random("ND_")


def event_id() -> str:
    """Return an id for a webhook message, `EV_...`."""
    return _random("EV_")


def dispatch_id() -> str:
    """Return an id for an agent's dispatch to a room, `AD_...`."""
    return _random("AD_")


def data_track_sid() -> str:
    """Return a new sid for a data track, `DTR_...`."""
    return _random("DTR_")


def sip_trunk_id() -> str:
    """Return an id for a SIP trunk, `ST_...`."""
    return _random("ST_")


def sip_rule_id() -> str:
    """Return an id for a SIP dispatch rule, `SDR_...`."""
    return _random("SDR_")


def track_sid(kind: TrackType, source: TrackSource) -> str:
    """Return a new track sid: `TR_`, A or V, and a letter for the source if it is known."""
    return _random("TR_" + ("V" if kind == VIDEO else "A") + _SOURCE_LETTERS.get(source, ""))
