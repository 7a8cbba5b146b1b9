"""What the configuration says about media: bandwidth, key frames, repair, delays. The keys and meanings are LiveKit's.

Who calls it: `configuration.py`.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field

from signaling.config.sections import Section
from signaling.config.values import parse_duration_s, parse_whole

MAX_DELAY_S = 3600.0
MAX_PLAYOUT_DELAY_MS = 40_950
"""What 12 bits hold in units of 10 ms."""
DEFAULT_MAX_PLAYOUT_DELAY_MS = 10_000
"""Chromium's own."""


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """What all rooms have in common."""

    limits_bandwidth: bool = True
    """`rtc.congestion_control.enabled`: nobody is sent more than its path carries."""
    allow_pause: bool = False
    """`rtc.congestion_control.allow_pause`: a video may be paused for lack of bandwidth; a client's own word counts
    more."""
    key_frame_retry_ms: tuple[int, int, int] = (0, 0, 0)
    """`rtc.pli_throttle`: least time between requests for key frames of a layer, lowest first; 0: the engine's."""
    proxies_loss: bool = False
    """`audio.enable_loss_proxying`: publishers of audio hear what their subscribers lose."""
    dynacast_pause_delay_s: float = 5.0
    """`video.dynacast_pause_delay`: how long nobody must have wanted a layer before its publisher is told."""
    dynacast_denied_delay_s: float = 60.0
    """`video.dynacast_denied_delay`: how long bandwidth must have denied a layer to every viewer until it counts as one
    that nobody wants. A key of our own."""


def _parse_milliseconds(value: object) -> int:
    milliseconds = parse_whole(value)
    if not 0 <= milliseconds <= MAX_PLAYOUT_DELAY_MS:
        raise ValueError(f"{value!r} is no number of milliseconds up to {MAX_PLAYOUT_DELAY_MS}")
    return milliseconds


def _parse_delay(value: object) -> float:
    seconds = parse_duration_s(value)
    if seconds > MAX_DELAY_S:
        raise ValueError(f"{value!r} is longer than an hour")
    return seconds


def playout_limits(least: int, most: int) -> tuple[int, int]:
    """Return the least and the most playout delay, in milliseconds, so that both fit into a header extension.

    Without a most (0) it is Chromium's; a least above the most is the most, as in livekit-server.
    """
    most = min(most or DEFAULT_MAX_PLAYOUT_DELAY_MS, MAX_PLAYOUT_DELAY_MS)
    return min(least, most), most


Delay = Annotated[float, BeforeValidator(_parse_delay)]


class CongestionControlSection(Section):
    """`rtc.congestion_control`."""

    enabled: bool = True
    allow_pause: bool = False


class PliThrottleSection(Section):
    """`rtc.pli_throttle`. What is not given, or zero, is the engine's."""

    low_quality: Delay = 0.0
    mid_quality: Delay = 0.0
    high_quality: Delay = 0.0

    def milliseconds(self) -> tuple[int, int, int]:
        """Return the times by layer, lowest first."""
        low, mid, high = (round(1000 * each) for each in (self.low_quality, self.mid_quality, self.high_quality))
        return low, mid, high


class AudioSection(Section):
    """`audio`."""

    enable_loss_proxying: bool = False


class VideoSection(Section):
    """`video`."""

    dynacast_pause_delay: Delay = 5.0
    dynacast_denied_delay: Delay = 60.0


class PlayoutDelaySection(Section):
    """`room.playout_delay`, in milliseconds."""

    enabled: bool = False
    min: Annotated[int, BeforeValidator(_parse_milliseconds)] = 0
    max: Annotated[int, BeforeValidator(_parse_milliseconds)] = 0

    def limits(self) -> tuple[int, int] | None:
        """Return the least and the most; None where it is not enabled."""
        return playout_limits(self.min, self.max) if self.enabled else None


class RtcMediaSections(Section):
    """What of `rtc` makes `MediaOptions`."""

    congestion_control: CongestionControlSection = Field(default_factory=CongestionControlSection)
    pli_throttle: PliThrottleSection = Field(default_factory=PliThrottleSection)


def media_options(rtc: RtcMediaSections, audio: AudioSection, video: VideoSection) -> MediaOptions:
    """Put the sections together."""
    return MediaOptions(
        limits_bandwidth=rtc.congestion_control.enabled,
        allow_pause=rtc.congestion_control.allow_pause,
        key_frame_retry_ms=rtc.pli_throttle.milliseconds(),
        proxies_loss=audio.enable_loss_proxying,
        dynacast_pause_delay_s=video.dynacast_pause_delay,
        dynacast_denied_delay_s=video.dynacast_denied_delay,
    )
