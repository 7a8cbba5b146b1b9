"""Numbers with a meaning in the allocation of bandwidth: what a video subscription is sent, and why not more."""

from enum import IntEnum


class Rung(IntEnum):
    """How far up a video subscription may go; each rung costs more than the one below."""

    NONE = -1
    """Nothing was allocated yet."""
    PAUSED = 0
    """Nothing is sent, where the operator or the client allows that."""
    KEY_FRAMES_ONLY = 1
    """Key frames of the lowest layer: those that come anyway, and one now and then that is asked for."""
    BASE_TEMPORAL = 2
    """The lowest spatial layer without its upper temporal layers."""
    LOWEST = 3
    """The lowest spatial layer with upper temporal layers."""
    HIGHER = 4
    """A higher spatial layer."""


class Held(IntEnum):
    """What a subscription is not sent of the layer that it follows."""

    NOTHING = 0
    KEY_FRAMES = 1
    """Everything but key frames."""
    SWITCH = 2
    """All that begins from now on: the picture stands until the key frame of a lower layer comes."""
    QUIETER = 3
    """Nothing of the microphone is sent, because VOICES louder ones are."""
    EXCESSIVE = 4
    """Nothing of the audio track is sent, because it takes more than one may claim before all video."""


class Reason(IntEnum):
    """Why a video subscription is sent what it is sent, and not more."""

    CLIENT = 0
    """The subscriber prefers no more."""
    BANDWIDTH = 1
    """More would not fit into what its path carries."""
    NOT_LIVE = 2
    """A higher layer is preferred, but the publisher does not send it."""
    PAUSED = 3
    """Not even key frames fit, and pausing is allowed."""
    KEY_FRAME = 4
    """The layer is allowed, but its key frame has not come yet."""
