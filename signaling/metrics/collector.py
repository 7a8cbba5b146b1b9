"""What Prometheus reads: the names, units and labels of everything, filled in at the moment of a scrape.

Who calls it: the HTTP side, for each scrape. Labels have few values that are known beforehand: no room, participant or
track has a time series of its own. LiveKit's names stand beside ours, so that its dashboards work.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UntypedMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from sfu.parameters import Kind
from signaling.metrics.numbers import Census, Engine, Joins, Rooms
from signaling.metrics.sampling import Histogram, Samples, buckets

if TYPE_CHECKING:
    from sfu.engine import Totals, Traffic

KEPT_S = 1.0
"""How long an answer serves all who ask, so that scraping cannot take the control thread's time."""
OPEN_METRICS = "application/openmetrics-text"
TRAFFIC = (
    ("packets_received", "packets_received", "SRTP and SRTCP packets received."),
    ("received_bytes", "bytes_received", "Bytes of them, without the headers of UDP and IP."),
    ("packets_sent", "packets_sent", "Datagrams sent, without those of DTLS."),
    ("sent_bytes", "bytes_sent", "Bytes of them, without the headers of UDP and IP."),
    ("retransmissions_received", "retransmissions_received", "RTX packets received."),
    ("retransmission_received_bytes", "retransmission_bytes_received", "Bytes of them, RTP header and payload."),
    ("retransmissions_sent", "retransmissions_sent", "RTX packets sent, those that probe a path included."),
    ("retransmission_sent_bytes", "retransmission_bytes_sent", "Bytes of them, RTP header and payload."),
    ("nacks_received", "nacks_received", "Packets that subscribers asked for again."),
    ("nacks_sent", "nacks_sent", "Packets that publishers were asked for again."),
    ("plis_received", "plis_received", "Picture loss indications from subscribers."),
    ("plis_sent", "plis_sent", "Picture loss indications to publishers."),
    ("firs_received", "firs_received", "Full intra requests from subscribers."),
    ("probe_bytes", "probe_bytes", "Bytes sent only to learn what paths carry."),
)
"""Name without prefix and suffix, attribute of `Traffic`, help."""
LIVEKIT_KINDS = {Kind.AUDIO: "AUDIO", Kind.VIDEO: "VIDEO"}
DIRECTIONS = ("incoming", "outgoing")
PROTOCOLS = ("udp", "tcp", "turn_udp", "turn_tcp", "turn_tls")
"""How clients are reached."""


class ServerCollector(Collector):
    """Everything of ours, made anew for each scrape."""

    def __init__(
        self, engine: Engine, rooms: Rooms, drops: Iterable[Callable[[], Mapping[str, int]]], joins: Joins
    ) -> None:
        """`drops` are counters by reason beside those of the engine and the rooms."""
        self._engine = engine
        self._rooms = rooms
        self._drops = (engine.drops, rooms.drops, *drops)
        self._joins = joins
        self._version = version("aiosfu")
        self.samples = Samples(engine.estimates)
        """What is sampled once a second."""

    def collect(self) -> Iterator[Metric]:
        """Read all numbers."""
        totals, census = self._engine.totals(), self._rooms.census()
        yield InfoMetricFamily("aiosfu_build", "The version that runs.", value={"version": self._version})
        for name, attribute, help_text in TRAFFIC:
            yield CounterMetricFamily(f"aiosfu_{name}", help_text, value=getattr(totals.traffic, attribute))
        yield self._dropped()
        yield _counters("aiosfu_joins", "Joins by their result.", "result", self._joins.counts)
        yield _api_calls(census)
        yield from _rooms(census, totals)
        yield from _loads(totals)
        yield _forwarding_delay(totals)
        yield _histogram(
            "aiosfu_estimate_bits_per_second",
            "What the path to each client that gives transport-cc feedback is believed to carry, each second.",
            self.samples.estimate_bps,
        )
        yield _histogram(
            "aiosfu_target_bits_per_second",
            "What all that may be sent to each of these clients costs, each second.",
            self.samples.target_bps,
        )
        yield _histogram(
            "aiosfu_control_loop_delay_seconds",
            "How late the control thread does what is due, each second.",
            self.samples.loop_delay_s,
        )
        yield from _livekit(totals, census)

    def _dropped(self) -> Metric:
        total: Counter[str] = Counter()
        for count in self._drops:
            total.update(count())
        return _counters("aiosfu_drops", "What was dropped, by reason.", "reason", total)


class Scrapes:
    """Answers of a server to Prometheus. Who scrapes more often than once in `KEPT_S` gets the last answer again."""

    def __init__(self, collector: ServerCollector, clock: Callable[[], float] = time.monotonic) -> None:
        """`collector` is the server's; what concerns the process is added. `clock` gives seconds, monotonic."""
        self._clock = clock
        self._kept: dict[bool, tuple[float, bytes]] = {}
        """The last answers: whether it is OpenMetrics -> (when it was made, its body)."""
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def answer(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type; `accept` is the header of that name."""
        is_open = OPEN_METRICS in accept
        content_type = openmetrics.CONTENT_TYPE_LATEST if is_open else CONTENT_TYPE_PLAIN_0_0_4
        now = self._clock()
        made_at, body = self._kept.get(is_open, (-math.inf, b""))
        if now - made_at >= KEPT_S:
            generate = openmetrics.generate_latest if is_open else generate_latest
            body = generate(self._registry)
            self._kept[is_open] = now, body
        return body, content_type


def _counters(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=(label,))
    for value, count in sorted(counts.items()):
        family.add_metric((value,), count)
    return family


def _gauges(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def _histogram(name: str, help_text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, help_text, buckets=histogram.buckets(), sum_value=histogram.sum)


def _by_kind(counts: Mapping[Kind, int]) -> dict[str, float]:
    return {kind.name.lower(): counts[kind] for kind in Kind}


def _api_calls(census: Census) -> Metric:
    family = CounterMetricFamily("aiosfu_api_calls", "Calls of the server API.", labels=("call", "code"))
    for labels, count in sorted(census.api_calls.items()):
        family.add_metric(labels, count)
    return family


def _rooms(census: Census, totals: "Totals") -> Iterator[Metric]:
    yield GaugeMetricFamily("aiosfu_rooms", "Rooms.", value=census.rooms)
    yield GaugeMetricFamily("aiosfu_participants", "Participants in rooms.", value=census.participants)
    yield _gauges("aiosfu_tracks", "Published tracks.", "kind", _by_kind(census.tracks))
    yield _gauges("aiosfu_subscriptions", "Tracks forwarded to clients.", "kind", _by_kind(totals.subscriptions))
    reached = {protocol: float(totals.protocols.get(protocol, 0)) for protocol in PROTOCOLS}
    yield _gauges("aiosfu_connections", "Peer connections by the way on which they are reached.", "protocol", reached)


def _loads(totals: "Totals") -> Iterator[Metric]:
    seconds = CounterMetricFamily(
        "aiosfu_media_thread_cpu_seconds", "Processor time of each media thread.", labels=("thread",)
    )
    fill = GaugeMetricFamily(
        "aiosfu_queue_fill_ratio", "How full queues to and from threads are.", labels=("queue", "thread")
    )
    for number, load in enumerate(totals.threads):
        seconds.add_metric((str(number),), load.cpu_seconds)
        fill.add_metric(("command", str(number)), load.command_queue_fill)
        fill.add_metric(("datagram", str(number)), load.datagram_queue_fill)
        fill.add_metric(("relay", str(number)), load.relay_queue_fill)
    fill.add_metric(("event", "control"), totals.event_queue_fill)
    yield seconds
    yield fill
    yield _gauges("aiosfu_rows_used", "Rows of the engine's tables that are in use.", "table", totals.rows_used)
    yield _gauges("aiosfu_rows_limit", "Rows of the engine's tables.", "table", totals.rows)
    yield GaugeMetricFamily(
        "aiosfu_packet_cache_bytes", "Packet caches handed out to tracks.", value=totals.packet_cache_bytes
    )


def _forwarding_delay(totals: "Totals") -> Metric:
    bounds, counts = zip(*totals.forwarding_delays, strict=True)
    return HistogramMetricFamily(
        "aiosfu_forwarding_delay_seconds",
        "From a packet's arrival in the kernel until its copies left, of one packet in each turn of a media thread; "
        "without what waits for bandwidth.",
        buckets=buckets(bounds[:-1], counts),
        sum_value=totals.forwarding_delay_sum_s,
    )


def _livekit(totals: "Totals", census: Census) -> Iterator[Metric]:
    """Name what LiveKit's dashboards show as livekit-server does: some of its gauges end with `_total`."""
    yield GaugeMetricFamily("livekit_room_total", "Rooms.", value=census.rooms)
    yield GaugeMetricFamily("livekit_participant_total", "Participants in rooms.", value=census.participants)
    for name, help_text, counts in (
        ("livekit_track_published_total", "Published tracks.", census.tracks),
        ("livekit_track_subscribed_total", "Tracks forwarded to clients.", totals.subscriptions),
    ):
        yield _gauges(name, help_text, "kind", {label: counts[kind] for kind, label in LIVEKIT_KINDS.items()})
    traffic = totals.traffic
    yield from _livekit_packets(traffic)
    for name, help_text, pair in (
        ("livekit_nack", "Packets asked for again.", (traffic.nacks_received, traffic.nacks_sent)),
        ("livekit_pli", "Picture loss indications.", (traffic.plis_received, traffic.plis_sent)),
        ("livekit_fir", "Full intra requests.", (traffic.firs_received, 0)),
    ):
        yield _counters(name, help_text, "direction", dict(zip(DIRECTIONS, pair, strict=True)))


def _livekit_packets(traffic: "Traffic") -> Iterator[Metric]:
    labels = ("direction", "transmission")
    packets = CounterMetricFamily("livekit_packet", "Packets.", labels=labels)
    # A counter of prometheus-client ends with `_total`, livekit-server's does not.
    size = UntypedMetricFamily("livekit_packet_bytes", "Bytes of packets.", labels=labels)
    counts = (
        (traffic.packets_received, traffic.retransmissions_received),
        (traffic.packets_sent, traffic.retransmissions_sent),
    )
    sizes = (
        (traffic.bytes_received, traffic.retransmission_bytes_received),
        (traffic.bytes_sent, traffic.retransmission_bytes_sent),
    )
    for family, numbers in ((packets, counts), (size, sizes)):
        for direction, (everything, again) in zip(DIRECTIONS, numbers, strict=True):
            family.add_metric((direction, "initial"), everything - again)
            family.add_metric((direction, "retransmit"), again)
    yield packets
    yield size
