"""Tells publishers which layers of which codec anybody wants, so that they encode no others (LiveKit's dynacast).

More is asked for at once; less only after a delay, because viewers scroll and resize. This is also how a publisher
is asked for its backup codec: a codec that it has not sent yet gets enabled qualities.
"""

from dataclasses import dataclass, field

from livekit.protocol.models import HIGH, LOW, MEDIUM, OFF
from livekit.protocol.rtc import SignalResponse, SubscribedCodec, SubscribedQuality, SubscribedQualityUpdate

from sfu.parameters import Codec, Kind
from signaling.rooms.tracks import Demand, Track, codec_name

PAUSE_DELAY_S = 5.0
"""How long nobody must have wanted a layer before its publisher is told, as in livekit-server."""

NOTHING = -1
"""The level of no layer at all. It is below every quality, because levels are compared; `OFF` is the largest value."""


@dataclass(slots=True)
class _Announced:
    """What a publisher was told last, and when it is to be told that less is wanted."""

    levels: dict[Codec, int]
    lower_at: float | None = None


@dataclass(slots=True)
class Dynacast:
    """The demand for the video tracks of one room."""

    pause_delay_s: float = PAUSE_DELAY_S
    _announced: dict[Track, _Announced] = field(default_factory=dict)
    _changed: set[Track] = field(default_factory=set)

    def set_demand(self, track: Track, subscriber_sid: str, demand: Demand | None) -> bool:
        """Note what a subscriber wants (None: nothing any more); return whether that is a change for `update`."""
        if track.kind is not Kind.VIDEO or track.demand.get(subscriber_sid) == demand:
            return False
        if demand is None:
            track.demand.pop(subscriber_sid, None)
        else:
            track.demand[subscriber_sid] = demand
        self._changed.add(track)
        return True

    def add(self, track: Track) -> None:
        """Add a track that was just announced, whose publisher sends all layers of its first codec."""
        if track.kind is Kind.VIDEO:
            self._announced[track] = _Announced(self._initial(track))
            self._changed.add(track)

    def remove(self, track: Track) -> None:
        """Forget a track."""
        self._announced.pop(track, None)
        self._changed.discard(track)

    def update(self, now: float) -> None:
        """Tell publishers of layers that are wanted since the last call, and begin the delay of those that are not."""
        for track in tuple(self._changed):
            if (announced := self._announced.get(track)) is not None:
                self._raise(track, announced, now)
        self._changed.clear()

    def lower(self, now: float) -> None:
        """Tell publishers of layers that nobody has wanted for `pause_delay_s`."""
        for track, announced in self._announced.items():
            if announced.lower_at is not None and now >= announced.lower_at:
                announced.lower_at = None
                announced.levels = self._wanted(track)
                _send(track, announced.levels)

    def repeat(self, track: Track) -> None:
        """Tell a publisher again what it was told last, after its socket was replaced."""
        if (announced := self._announced.get(track)) is not None:
            _send(track, announced.levels)

    def _raise(self, track: Track, announced: _Announced, now: float) -> None:
        wanted = self._wanted(track)
        levels = {codec: max(level, announced.levels.get(codec, NOTHING)) for codec, level in wanted.items()}
        if levels == wanted:
            announced.lower_at = None
        elif announced.lower_at is None:
            announced.lower_at = now + self.pause_delay_s
        if levels != announced.levels:
            announced.levels = levels
            _send(track, levels)

    def _wanted(self, track: Track) -> dict[Codec, int]:
        levels = dict.fromkeys(_codecs(track), NOTHING)
        for demand in track.demand.values():
            if demand.codec in levels and demand.quality != OFF:
                levels[demand.codec] = max(levels[demand.codec], demand.quality)
        return levels

    def _initial(self, track: Track) -> dict[Codec, int]:
        sent = {each.codec for each in track.ranked()}
        return {codec: HIGH if codec in sent else NOTHING for codec in _codecs(track)}


def _codecs(track: Track) -> tuple[Codec, ...]:
    """Return every codec that the publisher announced or sends, best first."""
    return tuple(dict.fromkeys(track.codecs + tuple(engine_track.codec for engine_track in track.ranked())))


def _send(track: Track, levels: dict[Codec, int]) -> None:
    codecs = [
        SubscribedCodec(
            codec=codec_name(codec),
            qualities=[SubscribedQuality(quality=quality, enabled=quality <= level) for quality in (LOW, MEDIUM, HIGH)],
        )
        for codec, level in levels.items()
    ]
    update = SubscribedQualityUpdate(track_sid=track.sid, subscribed_codecs=codecs)
    if codecs:
        # For clients that know one codec per track only.
        update.subscribed_qualities.extend(codecs[0].qualities)
    track.publisher.send(SignalResponse(subscribed_quality_update=update))
