"""What the configuration says about media, beyond rooms. The keys and meanings are LiveKit's.

Who calls it: `configuration.py`.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from signaling.config.sections import Section
from signaling.config.values import parse_duration_s

MAX_DELAY_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaOptions:
    """What all rooms have in common."""

    allow_pause: bool = False
    """`rtc.congestion_control.allow_pause`: a video may be paused for lack of bandwidth; a client's own word counts
    more."""
    dynacast_pause_delay_s: float = 5.0
    """`video.dynacast_pause_delay`: how long nobody must have wanted a layer before its publisher is told."""


def _parse_delay(value: object) -> float:
    seconds = parse_duration_s(value)
    if seconds > MAX_DELAY_S:
        raise ValueError(f"{value!r} is longer than an hour")
    return seconds


class CongestionControlSection(Section):
    """`rtc.congestion_control`."""

    allow_pause: bool = False


class RtcMediaSections(Section):
    """What of `rtc` makes `MediaOptions`."""

    congestion_control: CongestionControlSection = Field(default_factory=CongestionControlSection)


class VideoSection(Section):
    """`video`."""

    dynacast_pause_delay: Annotated[float, BeforeValidator(_parse_delay)] = 5.0


def media_options(rtc: RtcMediaSections, video: VideoSection) -> MediaOptions:
    """Put the sections together."""
    return MediaOptions(
        allow_pause=rtc.congestion_control.allow_pause, dynacast_pause_delay_s=video.dynacast_pause_delay
    )
