"""Tells publishers which layers of which codec anybody wants, so that they encode no others (LiveKit's dynacast).

More is asked for at once; less only after a delay, because viewers scroll and resize. This is also how a publisher
is asked for its backup codec: a codec that it has not sent yet gets enabled qualities.

A layer is wanted while a viewer prefers it or a higher one, or is still sent it. One of several streams that bandwidth
denies to every viewer for a longer time is not wanted either, until the path of one of them carries what it cost last.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from livekit.protocol.models import HIGH, LOW, MEDIUM, OFF, VideoQuality
from livekit.protocol.rtc import SignalResponse, SubscribedCodec, SubscribedQuality, SubscribedQualityUpdate

from sfu.engine import LayerUse
from sfu.parameters import MAX_SPATIAL, Codec, Kind, TrackId
from signaling.rooms.tracks import Demand, Track, codec_name

PAUSE_DELAY_S = 5.0
"""How long nobody must have wanted a layer before its publisher is told, as in livekit-server."""
DENIED_DELAY_S = 60.0
"""How long bandwidth must have denied a layer to every viewer until that counts as nobody wanting it: paths recover."""
RETURN_S = 10.0
"""How long a layer that is wanted again counts as one that comes, which takes a publisher a second or two."""

NOTHING = -1
"""The level of no layer at all. It is below every quality, because levels are compared; `OFF` is the largest value."""
_ABOVE_LOW = (MEDIUM, HIGH)
"""The lowest layer is never given up for lack of bandwidth: it is where viewers go on from."""


@dataclass(slots=True)
class _Announced:
    """What a publisher was told last, and when it is to be told that less is wanted."""

    levels: dict[Codec, int]
    lower_at: float | None = None
    denied: dict[tuple[Codec, VideoQuality], float] = field(default_factory=dict)
    """Since when bandwidth has denied qualities to every viewer."""
    ceilings: dict[Codec, int] = field(default_factory=dict)
    """The highest level that is wanted of a codec, where bandwidth has denied what is above for long enough."""
    returns_until: float | None = None
    """Until when layers that were told as wanted again count as ones that come."""

    def wanted(self, track: Track) -> dict[Codec, int]:
        """Return the level of each codec that viewers prefer, and that bandwidth has not denied for too long."""
        return {codec: min(level, self.ceilings.get(codec, HIGH)) for codec, level in _preferred(track).items()}


@dataclass(slots=True)
class Dynacast:
    """The demand for the video tracks of one room."""

    set_resting: Callable[[TrackId, Iterable[int]], None]
    """Tells the engine which layers of a track its publisher was told to stop."""
    pause_delay_s: float = PAUSE_DELAY_S
    denied_delay_s: float = DENIED_DELAY_S
    _announced: dict[Track, _Announced] = field(default_factory=dict)
    _changed: set[Track] = field(default_factory=set)
    _uses: Mapping[TrackId, LayerUse] = field(default_factory=dict)
    """What the engine said last."""

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

    def tick(self, now: float, uses: Mapping[TrackId, LayerUse]) -> None:
        """Tell publishers of layers that are wanted again, or that nobody has wanted for long enough.

        Args:
            now: the node's clock, in seconds.
            uses: what the engine's `layer_uses` returned.
        """
        self._uses = uses
        for track, announced in self._announced.items():
            if self._note_denied(track, announced, now):
                self._raise(track, announced, now)
            if announced.lower_at is not None and now >= announced.lower_at:
                self._lower(track, announced)
            if announced.returns_until is not None and now >= announced.returns_until:
                announced.returns_until = None
                self._tell_resting(track, announced.levels)

    def repeat(self, track: Track) -> None:
        """Tell a publisher again what it was told last, after its socket was replaced."""
        if (announced := self._announced.get(track)) is not None:
            _send(track, announced.levels)

    def _note_denied(self, track: Track, announced: _Announced, now: float) -> bool:
        """Note which qualities bandwidth denies to every viewer; return whether that changes what is wanted."""
        granted = self._qualities(track, "granted")
        # What was told is no less than what viewers prefer, but for changes that `update` has not seen yet. Viewers can
        # be very many, and this is a tick.
        if not announced.denied and all(announced.levels.get(codec, HIGH) <= level for codec, level in granted.items()):
            return False
        since = {
            (codec, quality): announced.denied.get((codec, quality), now)
            for codec, preferred in _preferred(track).items()
            for quality in _ABOVE_LOW
            if granted.get(codec, HIGH) < quality <= preferred
        }
        ceilings: dict[Codec, int] = {}
        for (codec, quality), begun in since.items():
            if now - begun >= self.denied_delay_s:
                ceilings[codec] = min(ceilings.get(codec, HIGH), quality - 1)
        changed = ceilings != announced.ceilings
        announced.denied, announced.ceilings = since, ceilings
        return changed

    def _raise(self, track: Track, announced: _Announced, now: float) -> None:
        wanted = announced.wanted(track)
        levels = {codec: max(level, announced.levels.get(codec, NOTHING)) for codec, level in wanted.items()}
        if levels == wanted:
            announced.lower_at = None
        elif announced.lower_at is None:
            announced.lower_at = now + self.pause_delay_s
        if levels != announced.levels:
            announced.levels = levels
            announced.returns_until = now + RETURN_S
            _send(track, levels)

    def _lower(self, track: Track, announced: _Announced) -> None:
        """Tell a publisher that less is wanted, as far as nobody is sent it any more; the rest is told later."""
        wanted, sent = announced.wanted(track), self._qualities(track, "sent")
        levels = {
            codec: max(level, min(sent.get(codec, NOTHING), announced.levels.get(codec, NOTHING)))
            for codec, level in wanted.items()
        }
        if levels == wanted:
            announced.lower_at = None
        if levels != announced.levels:
            announced.levels = levels
            self._tell_resting(track, levels)
            _send(track, levels)

    def _tell_resting(self, track: Track, levels: dict[Codec, int]) -> None:
        """Tell the engine which layers a publisher was told to stop."""
        for each in track.engine_tracks.values():
            level = levels.get(each.codec, NOTHING)
            self.set_resting(each.id, [layer for layer in range(MAX_SPATIAL + 1) if track.quality_of(layer) > level])

    def _qualities(self, track: Track, kind: Literal["sent", "granted"]) -> dict[Codec, int]:
        """Return codec -> the quality of the highest layer that the engine names, where it names any."""
        found: dict[Codec, int] = {}
        for each in track.engine_tracks.values():
            if (use := self._uses.get(each.id)) is not None:
                layer = use.sent if kind == "sent" else use.granted
                quality = track.quality_of(layer) if layer >= 0 else NOTHING
                found[each.codec] = max(quality, found.get(each.codec, NOTHING))
        return found

    def _initial(self, track: Track) -> dict[Codec, int]:
        sent = {each.codec for each in track.ranked()}
        return {codec: HIGH if codec in sent else NOTHING for codec in _codecs(track)}


def _preferred(track: Track) -> dict[Codec, int]:
    """Return the level of each codec that viewers prefer."""
    levels = dict.fromkeys(_codecs(track), NOTHING)
    for demand in track.demand.values():
        if demand.codec in levels and demand.quality != OFF:
            levels[demand.codec] = max(levels[demand.codec], demand.quality)
    return levels


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
