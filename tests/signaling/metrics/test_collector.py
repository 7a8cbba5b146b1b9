"""signaling/metrics/: names, units and labels of a scrape, in both formats, and the dashboard that reads them."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from sfu.engine import Totals
from sfu.parameters import Kind
from signaling.metrics.collector import KEPT_S, PROTOCOLS, Scrapes, ServerCollector
from signaling.metrics.numbers import JOIN_RESULTS, Census, Joins
from signaling.metrics.sampling import Histogram, Samples
from tests.signaling.support.fake_engine import FakeEngine

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana-dashboard.json"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class PlayedRooms:
    def drops(self) -> dict[str, int]:
        return {"malformed_messages": 2}

    def census(self) -> Census:
        calls = {("RoomService/ListRooms", "ok"): 6, ("RoomService/ListRooms", "unauthenticated"): 1}
        return Census(2, 5, {Kind.AUDIO: 4, Kind.VIDEO: 3}, calls)


class Server:
    def __init__(self) -> None:
        self.engine, self.joins, self.refused = FakeEngine(), Joins(), Counter({"head": 4})
        self.collector = ServerCollector(self.engine, PlayedRooms(), (lambda: self.refused,), self.joins)
        self.now = 0.0
        self.scrapes = Scrapes(self.collector, lambda: self.now)

    def scrape(self, accept: str = "") -> Values:
        """Every sample by its name and labels, as it is now."""
        self.now += KEPT_S
        body, content_type = self.scrapes.answer(accept)
        assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
        parse = openmetrics_parser if accept else parser
        families = list(parse.text_string_to_metric_families(body.decode()))
        samples = [sample for family in families for sample in family.samples]
        values = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
        assert len(values) == len(samples), "a sample comes twice"
        return values


@pytest.fixture
def server() -> Server:
    return Server()


def value(values: Values, name: str, **labels: str) -> float:
    return values[name, tuple(sorted(labels.items()))]


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
def test_a_scrape_is_read_in_both_formats(server: Server, accept: str) -> None:
    server.engine.traffic = {"packets_received": 100, "retransmissions_received": 10, "bytes_sent": 5000}
    server.engine.estimated = [(80_000, 40_000), (2_000_000, 700_000)]
    server.collector.samples.take(0.003)
    values = server.scrape(accept)
    assert value(values, "aiosfu_packets_received_total") == 100
    assert value(values, "aiosfu_sent_bytes_total") == 5000
    assert value(values, "aiosfu_drops_total", reason="malformed_messages") == 2
    assert value(values, "aiosfu_drops_total", reason="head") == 4
    assert value(values, "aiosfu_rooms") == 2
    assert value(values, "aiosfu_participants") == 5
    assert value(values, "aiosfu_api_calls_total", call="RoomService/ListRooms", code="ok") == 6
    assert value(values, "aiosfu_api_calls_total", call="RoomService/ListRooms", code="unauthenticated") == 1
    assert value(values, "aiosfu_tracks", kind="audio") == 4
    assert value(values, "aiosfu_subscriptions", kind="video") == 1
    connections = {name: value(values, "aiosfu_connections", protocol=name) for name in PROTOCOLS}
    assert connections == {"udp": 2, "tcp": 0, "turn_udp": 0, "turn_tcp": 0, "turn_tls": 1}
    assert value(values, "aiosfu_media_thread_cpu_seconds_total", thread="1") == 2.5
    assert value(values, "aiosfu_queue_fill_ratio", queue="command", thread="0") == 0.25
    assert value(values, "aiosfu_queue_fill_ratio", queue="datagram", thread="1") == 0.5
    assert value(values, "aiosfu_queue_fill_ratio", queue="relay", thread="1") == 0.75
    assert value(values, "aiosfu_queue_fill_ratio", queue="event", thread="control") == 0.125
    assert value(values, "aiosfu_target_bits_per_second_bucket", le="50000.0") == 1
    assert value(values, "aiosfu_target_bits_per_second_sum") == 740_000
    assert value(values, "aiosfu_forwarding_delay_seconds_bucket", le="0.0001") == 3
    assert value(values, "aiosfu_forwarding_delay_seconds_bucket", le="0.001") == 7
    assert value(values, "aiosfu_forwarding_delay_seconds_count") == 8
    assert value(values, "aiosfu_forwarding_delay_seconds_sum") == 0.02
    assert value(values, "aiosfu_rows_used", table="transports") == 3
    assert value(values, "aiosfu_rows_limit", table="transports") == 8192
    assert value(values, "aiosfu_estimate_bits_per_second_bucket", le="100000.0") == 1
    assert value(values, "aiosfu_estimate_bits_per_second_count") == 2
    assert value(values, "aiosfu_estimate_bits_per_second_sum") == 2_080_000
    assert value(values, "aiosfu_control_loop_delay_seconds_bucket", le="0.002") == 0
    assert value(values, "aiosfu_control_loop_delay_seconds_bucket", le="0.005") == 1
    assert value(values, "process_resident_memory_bytes") > 0
    assert any(name == "aiosfu_build_info" for name, _ in values)


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
def test_livekits_names_and_labels_are_there(server: Server, accept: str) -> None:
    server.engine.traffic = {
        "packets_received": 100,
        "retransmissions_received": 10,
        "bytes_sent": 5000,
        "retransmission_bytes_sent": 400,
        "nacks_received": 3,
        "plis_sent": 4,
    }
    values = server.scrape(accept)
    assert value(values, "livekit_room_total") == 2
    assert value(values, "livekit_participant_total") == 5
    assert value(values, "livekit_track_published_total", kind="AUDIO") == 4
    assert value(values, "livekit_track_subscribed_total", kind="VIDEO") == 1
    assert value(values, "livekit_packet_total", direction="incoming", transmission="initial") == 90
    assert value(values, "livekit_packet_total", direction="incoming", transmission="retransmit") == 10
    assert value(values, "livekit_packet_bytes", direction="outgoing", transmission="initial") == 4600
    assert value(values, "livekit_packet_bytes", direction="outgoing", transmission="retransmit") == 400
    assert value(values, "livekit_nack_total", direction="incoming") == 3
    assert value(values, "livekit_pli_total", direction="outgoing") == 4
    assert value(values, "livekit_fir_total", direction="incoming") == 0


def test_joins_are_counted_by_few_results(server: Server) -> None:
    server.joins.accepted(False)
    server.joins.accepted(True)
    for status in (400, 401, 401, 503, 404, 418):
        server.joins.refused(status)
    values = server.scrape()
    counts = {result: value(values, "aiosfu_joins_total", result=result) for result in JOIN_RESULTS}
    assert counts == {
        "admitted": 1,
        "resumed": 1,
        "malformed": 1,
        "unauthorized": 2,
        "no_room": 1,
        "full": 1,
        "other": 1,
    }


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
def test_a_second_scrape_soon_after_takes_no_work(server: Server, accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    collected = 0
    real = server.engine.totals

    def totals() -> Totals:
        nonlocal collected
        collected += 1
        return real()

    monkeypatch.setattr(server.engine, "totals", totals)
    server.now += KEPT_S
    first = server.scrapes.answer(accept)
    server.now += KEPT_S / 2
    assert server.scrapes.answer(accept) == first
    assert collected == 1
    server.now += KEPT_S / 2
    server.scrapes.answer(accept)
    assert collected == 2


def test_no_label_could_name_a_participant(server: Server) -> None:
    labels = {label for _, pairs in server.scrape() for label, _ in pairs}
    fixed = {"reason", "result", "kind", "thread", "queue", "table", "le", "direction", "transmission", "version"}
    fixed |= {"protocol", "call", "code"}  # ways to clients; and calls of the server API, which has so many
    of_python = {"generation", "implementation", "major", "minor", "patchlevel"}
    assert labels == fixed | of_python


def test_a_scrape_is_as_long_for_many_clients_as_for_none(server: Server) -> None:
    before = len(server.scrape())
    server.engine.estimated = [(1_000_000 + number, 500_000) for number in range(1000)]
    server.collector.samples.take(0.0)
    assert len(server.scrape()) == before
    assert value(server.scrape(), "aiosfu_estimate_bits_per_second_count") == 1000


def test_a_value_on_a_bound_counts_below_it() -> None:
    histogram = Histogram((1, 2))
    histogram.observe((0.5, 1, 1.5, 2, 3))
    assert histogram.buckets() == [("1.0", 2.0), ("2.0", 4.0), ("+Inf", 5.0)]
    assert histogram.sum == 8.0


def test_a_timer_that_comes_early_is_not_late() -> None:
    samples = Samples(list)
    samples.take(-0.0005)
    assert samples.loop_delay_s.sum == 0.0


def test_every_metric_of_the_dashboard_is_in_a_scrape(server: Server) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]
    named = {name for query in queries for name in re.findall(r"\b(?:aiosfu|livekit|process)_\w+", query)}
    assert len(dashboard["panels"]) >= 12
    assert len(named) > 20
    assert named - {name for name, _ in server.scrape()} == set()
