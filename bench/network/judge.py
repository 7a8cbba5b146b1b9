"""What a run says about the server: figures of the link and of each viewer for every phase of its case.

A picture stands still where the time to the next one exceeds what getStats of WebRTC calls a freeze: three times the
mean of the last 30 times between pictures, and at least 150 ms more than it. A picture that never changes again counts
too, which getStats does not see.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from bench.network.counts import BUCKET_S, DOWN, UP, Record
from bench.network.link import value_at
from bench.network.run import Outcome, Say

SETTLED_S = 3.0
"""Seconds from the beginning of a phase after which queue and loss count."""
WINDOW_S = 0.5
LAST_S = 20.0
EARLY_S = 2.0
"""Gaps of audio are reported apart for so long after the begin of a phase."""
QUEUE_MS = 100.0
FREEZE_TIMES, FREEZE_MORE_S = 3.0, 0.15
MEAN_OF = 30
RECONNECTS = "reconnecting"
"""An event that clients tell."""
SAMPLES_PER_MS = 48.0


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """The narrow direction of the link in a phase. Rates are bits of IP packets per second, shares are 0 to 1."""

    begin: float
    end: float
    capacity: float | None
    """The mean rate of the link. None: it has no limit."""
    offered: float
    """The rate of what came to the bottleneck."""
    carried: float
    """The rate of what was not dropped."""
    within_s: float | None
    """Seconds until the first WINDOW_S in which no more than the capacity was offered. None: there was none."""
    queue_p95_ms: float
    """The 95th percentile of the longest waits in each tenth of a second after SETTLED_S."""
    queue_over: float
    """The share of the time after SETTLED_S in which packets waited for more than QUEUE_MS."""
    dropped: float
    """The share of the RTP packets after SETTLED_S for which the queue had no room."""


@dataclass(frozen=True, slots=True)
class ViewFigures:
    """What one viewer saw and heard in a phase."""

    viewer: str
    begin: float
    end: float
    video_bps: float
    """The rate of video payload, as getStats counts it."""
    lines: int
    """The height of most pictures in the second half of the phase. 0: there were none."""
    switches: int
    """How often the height of the picture changed."""
    late_switches: int
    """How often it changed in the last LAST_S of the phase."""
    freezes: int
    frozen_s: float
    longest_s: float
    oldest_ms: int
    """The greatest age of a picture when it was shown."""
    first_s: float | None
    """Seconds from the viewer's first report to its first picture, if that was in this phase."""
    pictures: int
    concealed: float
    """The share of audio samples that the client made up (concealed)."""
    early_gap_ms: float
    """The longest run of audio that was made up in the first EARLY_S."""
    gap_ms: float
    """The longest run of audio that was made up after EARLY_S."""
    lost: float
    """The share of video packets that were lost and not received again either."""
    again: float
    """Video packets that were received again, as share of all received."""
    key_frames: int
    plis: int
    reconnects: int
    """How often the client lost the server and began to connect again."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The figures of a whole run."""

    links: tuple[LinkFigures, ...]
    views: tuple[ViewFigures, ...]

    def view(self, viewer: str, phase: int) -> ViewFigures:
        """Return the figures of a viewer in a phase, which is given by its number."""
        begin = self.links[phase].begin
        return next(each for each in self.views if (each.viewer, each.begin) == (viewer, begin))


def judge(outcome: Outcome) -> Judgement:
    """Return all figures of a run."""
    phases = outcome.case.phases()
    links = tuple(_link(outcome, begin, end) for begin, end in phases)
    views = tuple(
        view(name, lines, begin, end)
        for name, lines in outcome.viewers.items()
        for begin, end in phases
        if any(line["at"] < end for line in lines)
    )
    return Judgement(links, views)


def _link(outcome: Outcome, begin: float, end: float) -> LinkFigures:
    case, record = outcome.case, outcome.record
    direction, conditions = (UP, case.up) if case.publisher_behind else (DOWN, case.down)
    buckets = range(round(begin / BUCKET_S), round(end / BUCKET_S))
    capacity = sum(value_at(conditions.rate, (bucket + 0.5) * BUCKET_S) for bucket in buckets) / len(buckets)
    settled = min(begin + SETTLED_S, end)
    media = record.media(direction, settled, end)
    waits = dict.fromkeys(buckets[round((settled - begin) / BUCKET_S) :] or buckets[-1:], 0.0)
    for bucket, _, count in record.select(direction, settled, end):
        waits[bucket] = max(waits[bucket], count.waited_ms)
    counts = [count for _, _, count in record.select(direction, begin, end)]
    offered = 8 * sum(count.size for count in counts) / (end - begin)
    return LinkFigures(
        begin,
        end,
        None if capacity == inf else capacity,
        offered,
        8 * sum(count.carried for count in counts) / (end - begin),
        _within(record, direction, begin, end, capacity),
        sorted(waits.values())[int(0.95 * (len(waits) - 1))],
        sum(wait > QUEUE_MS for wait in waits.values()) / len(waits),
        _share(sum(count.dropped for count in media), sum(count.packets for count in media)),
    )


def _within(record: Record, direction: str, begin: float, end: float, capacity: float) -> float | None:
    sizes: Counter[int] = Counter()
    for bucket, _, count in record.select(direction, begin, end):
        sizes[bucket] += count.size
    first, window = round(begin / BUCKET_S), round(WINDOW_S / BUCKET_S)
    for start in range(first, round(end / BUCKET_S) - window + 1):
        if 8 * sum(sizes[start + place] for place in range(window)) <= capacity * WINDOW_S:
            return (start - first) * BUCKET_S
    return None


def view(name: str, lines: Sequence[Say], begin: float, end: float) -> ViewFigures:
    """Return the figures of one viewer for a time, from everything that it said in the run."""
    shown = [(at, height, age) for line in lines for at, height, age in line.get("pictures", ())]
    mine = [each for each in shown if begin <= each[0] < end]
    heights = [height for _, height, _ in mine]
    came = max(begin, lines[0]["at"]) if lines else begin
    freezes = freezes_of([at for at, _, _ in shown], begin, end) if shown else [end - came]
    video, audio = (_growth(lines, kind, begin, end) for kind in ("video", "audio"))
    late = max(begin, end - LAST_S)
    seen = Counter(height for at, height, _ in mine if at >= (begin + end) / 2).most_common(1)
    return ViewFigures(
        viewer=name,
        begin=begin,
        end=end,
        video_bps=8 * video["bytes"] / (end - begin),
        lines=seen[0][0] if seen else 0,
        switches=_changes(heights),
        late_switches=_changes([height for at, height, _ in mine if at >= late]),
        freezes=len(freezes),
        frozen_s=sum(freezes),
        longest_s=max(freezes, default=0.0),
        oldest_ms=max((age for _, _, age in mine if age is not None), default=0),
        first_s=shown[0][0] - lines[0]["at"] if shown and shown[0] in mine else None,
        pictures=len(mine),
        concealed=_share(audio["concealed_samples"], audio["total_samples_received"]),
        early_gap_ms=longest_gap_ms(lines, begin, min(begin + EARLY_S, end)),
        gap_ms=longest_gap_ms(lines, min(begin + EARLY_S, end), end),
        lost=_share(max(0, video["lost"] - video["again"]), video["packets"] + max(0, video["lost"])),
        again=_share(video["again"], video["packets"]),
        key_frames=int(video["key_frames_decoded"]),
        plis=int(video["pli_count"]),
        reconnects=sum(line.get("event") == RECONNECTS and begin <= line["at"] < end for line in lines),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _changes(values: Sequence[int]) -> int:
    return sum(a != b for a, b in pairwise(values))


def _growth(lines: Sequence[Say], kind: str, begin: float, end: float) -> Counter[str]:
    """Return by how much the counters of a kind of stream grew in a time.

    A client that connected again counts from zero, which is seen where fewer packets are told than before.
    """
    found: Counter[str] = Counter()
    before: Say = {}
    for line in lines:
        now: Say | None = line.get(kind)
        if now is None or line["at"] >= end:
            continue
        if now["packets"] < before.get("packets", 0):
            before = {}
        if line["at"] >= begin:
            found.update({name: value - before.get(name, 0) for name, value in now.items()})
        before = now
    return found


def freezes_of(times: Sequence[float], begin: float, end: float) -> list[float]:
    """Return the seconds of each freeze between two times; `times` says when pictures were shown."""
    if not times:
        return []
    recent: deque[float] = deque(maxlen=MEAN_OF)
    found = []
    for at, following in zip(times, [*times[1:], end], strict=True):
        gap = following - at
        mean = sum(recent) / len(recent) if recent else gap
        frozen = gap > max(FREEZE_TIMES * mean, mean + FREEZE_MORE_S)
        recent.append(gap)
        inside = min(following, end) - max(at, begin)
        if frozen and inside > 0:
            found.append(inside)
    return found


def longest_gap_ms(lines: Sequence[Say], begin: float, end: float) -> float:
    """Return the longest run of audio that a client made up, in milliseconds.

    The statistics count samples and runs. If several runs began between two reports, their mean is taken.
    """
    longest = run = 0.0
    before: Say | None = None
    for line in lines:
        now: Say | None = line.get("audio")
        if now is None or line["at"] >= end:
            continue
        if before is not None and now["concealed_samples"] < before["concealed_samples"]:
            before = None  # it connected again
        if before is not None and line["at"] >= begin:
            samples = now["concealed_samples"] - before["concealed_samples"]
            runs = now["concealment_events"] - before["concealment_events"]
            run = (run if runs == 0 else 0.0) + samples / max(1, runs) if samples > 0 else 0.0
            longest = max(longest, run)
        before = now
    return longest / SAMPLES_PER_MS
