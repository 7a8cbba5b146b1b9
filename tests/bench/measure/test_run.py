"""The benchmark end to end in small: systems start, packets arrive and are accounted for. No test asserts a time."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from livekit.protocol.room import RoomParticipantIdentity

from bench.__main__ import main
from bench.measure.calls import mix
from bench.measure.run import BISECTIONS, Ramp, RunFailed, SessionProcess, Subject
from bench.results import Latency, Measurement, Report
from bench.scenarios import Scenario

pytestmark = pytest.mark.alone

WEBINAR = Scenario("webinar", "", "viewers", 3, 0.5, audio=True, video="single")
LAYER_SWITCHES = Scenario(
    "layer-switches",
    "",
    "participants",
    3,
    1.0,
    video="simulcast",
    large=1,
    switches_per_second=4.0,
    mutes_per_second=1.0,
)
JOINS = Scenario("joins", "", "viewers", 3, 1.0, audio=True, late=True)
DATA = Scenario("data", "", "viewers", 3, 1.0, data="reliable", messages_per_second=20.0)
LOSSY_DATA = Scenario("lossy", "", "viewers", 3, 1.0, publishers=2, data="lossy", messages_per_second=20.0)
FLOOD = Scenario(
    "flood", "", "viewers", 2, 1.0, audio=True, data="reliable", messages_per_second=50.0, data_receivers=2
)
CHURN = Scenario("churn", "", "viewers", 2, 1.0, audio=True, churn_per_second=5.0, stay_s=0.3)
API = Scenario("api", "", "viewers", 2, 1.0, audio=True, calls_per_second=20.0)
KEY_FRAMES = Scenario("key-frames", "", "viewers", 1, 1.0, video="single", key_interval_frames=1)
PICKY = "tests.bench.support.picky_target"
LOSSY = Scenario("webinar", "", "viewers", 3, 0.5, loss=0.05, video="single")
"""Few enough losses that no receiver report tells of more than a tenth: beyond that the server sends less video."""


def measure(target: str, scenario: Scenario) -> Measurement:
    with SessionProcess(Subject(target), scenario) as session:
        assert session.versions
        return session.measure()


@pytest.mark.parametrize(
    ("target", "scenario"),
    [
        ("aiosfu", WEBINAR),
        ("reflector", WEBINAR),
        ("aiosfu", LAYER_SWITCHES),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_packets_arrive_and_are_accounted_for(target: str, scenario: Scenario) -> None:
    measured = measure(target, scenario)
    assert (measured.system, measured.scenario, measured.n) == (target, scenario.name, 3)
    assert 0 < measured.delivered <= measured.offered
    assert measured.delivered == measured.latency.count
    assert measured.cpu_us_per_packet > 0
    assert not any("authenticate" in note for note in measured.notes)


def test_key_frames_come_as_often_as_the_scenario_says_on_top_of_the_rate() -> None:
    assert (
        measure("reflector", KEY_FRAMES).offered
        > 4 * KEY_FRAMES.tracks[0].layers[0].packets_per_second * KEY_FRAMES.seconds
    )


def test_who_joins_while_it_is_measured_gets_media() -> None:
    measured = measure("aiosfu", JOINS)
    assert len(measured.joins_ms) == JOINS.n
    assert all(milliseconds > 0 for milliseconds in measured.joins_ms)


def test_a_join_that_another_server_refuses_is_a_result() -> None:
    measured = measure(PICKY, JOINS)
    assert (len(measured.joins_ms), measured.joins_due) == (JOINS.n - 1, JOINS.n)
    (failed,) = [note for note in measured.notes if "join" in note]
    assert failed == "1 of 3 joins failed: picky: viewer-1 could not join: the server closed the socket (1000)"
    assert measured.loss == 0


def test_a_join_that_ours_refuses_is_an_error() -> None:
    with (
        SessionProcess(Subject(PICKY, (("foreign", "0"),)), JOINS) as session,
        pytest.raises(RunFailed, match=r"^picky: viewer-1 could not join"),
    ):
        session.measure()


def test_before_the_measurement_everybody_has_to_get_in() -> None:
    with pytest.raises(RunFailed, match=r"^picky: viewer-1 could not join"):
        SessionProcess(Subject(PICKY), WEBINAR)


def test_what_is_thrown_away_is_asked_for_again() -> None:
    measured = measure("aiosfu", LOSSY)
    assert measured.loss < LOSSY.loss / 2
    assert any("repaired" in note for note in measured.notes)


@pytest.mark.parametrize(("scenario", "receivers"), [(DATA, 3), (LOSSY_DATA, 4)], ids=lambda value: str(value)[:20])
def test_every_message_reaches_everybody_else(scenario: Scenario, receivers: int) -> None:
    measured = measure("aiosfu", scenario)
    due = scenario.publishers * scenario.messages_per_second * scenario.seconds * receivers
    assert measured.unit == "message"
    assert measured.offered == pytest.approx(due, abs=2 * scenario.publishers * receivers)
    assert measured.delivered == measured.offered == measured.latency.count
    assert measured.cpu_us_per_packet > 0
    assert not any("fell out" in note or "dropped" in note for note in measured.notes)


def test_beside_a_flood_media_is_what_is_counted() -> None:
    measured = measure("aiosfu", FLOOD)
    assert measured.unit == "packet"
    assert measured.delivered == measured.offered == 2 * 50
    (flood,) = [note for note in measured.notes if "reliable messages of 200 bytes" in note]
    assert "0.0% lost" in flood


@pytest.mark.parametrize("target", ["aiosfu", "floor"])
def test_churn_is_load_and_not_measured(target: str) -> None:
    measured = measure(target, CHURN)
    assert measured.delivered == measured.offered == measured.latency.count == 2 * 50
    (churn,) = [note for note in measured.notes if "were completed" in note]
    assert int(churn.split("; ")[1].split()[0]) > 0
    assert not any("could not join" in note or "got no media" in note for note in measured.notes)
    assert measured.main_thread_busy > 0


def test_calls_of_the_server_api_are_load_and_have_figures_of_their_own() -> None:
    measured = measure("aiosfu", API)
    assert measured.delivered == measured.offered == measured.latency.count == 2 * 50
    assert measured.calls_due == len(measured.calls_ms)
    assert 10 < measured.calls_due < 30  # 20 in an exact second, which a busy machine does not measure
    assert all(milliseconds > 0 for milliseconds in measured.calls_ms)
    assert not any("calls" in note for note in measured.notes)
    assert measured.main_thread_busy > 0


def test_a_target_without_the_server_api_says_so() -> None:
    measured = measure("reflector", API)
    assert measured.calls_due == 0
    assert "reflector has no server API" in measured.notes


def test_the_calls_are_about_the_viewers_and_some_of_each_kind() -> None:
    bodies = mix(API)
    assert {name for name, _ in bodies} == {
        "UpdateParticipant",
        "ListParticipants",
        "ListRooms",
        "SendData",
        "GetParticipant",
    }
    named = {request.identity for _, request in bodies if isinstance(request, RoomParticipantIdentity)}
    assert named == {plan.identity for plan in API.viewers()}


def test_a_target_without_data_channels_says_so() -> None:
    with pytest.raises(RunFailed, match=r"^reflector has no data channels, which data is about$"):
        SessionProcess(Subject("reflector"), DATA)


def test_a_target_that_does_not_start_says_why() -> None:
    with pytest.raises(RunFailed, match="there is no livekit-server"):
        SessionProcess(Subject("livekit", (("binary", "/nowhere/livekit-server"),)), WEBINAR)


class FakeSession:
    """Carries everything up to a load."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.loads: list[float] = []

    def measure(self, load: float, repeat: int) -> Measurement:
        self.loads.append(load)
        delivered = 1000 if load <= self.limit else 500
        nothing = Latency(0, 0, 0, 0, 0, 0)
        return Measurement("fake", "x", 1, repeat, 1.0, load, 1000, delivered, 1.0, 0.0, 0.5, 0.1, nothing, 0.0)


@pytest.mark.parametrize("limit", [0.3, 1.0, 7.7])
def test_a_ramp_closes_in_on_the_highest_load_that_is_carried(limit: float) -> None:
    session: Any = FakeSession(limit)
    ramp = Ramp(session, 0, lambda measured: measured.loss == 0, lambda _: None)
    ramp.climb(0.5)
    assert ramp.best is not None
    assert limit * (1 - 0.5**BISECTIONS) <= ramp.best.load <= limit


def test_a_ramp_finds_out_that_nothing_is_carried() -> None:
    session: Any = FakeSession(0.0)
    ramp = Ramp(session, 0, lambda measured: measured.loss == 0, lambda _: None)
    ramp.climb(0.5)
    assert ramp.best is None
    assert ramp.steps


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("floor", Subject("floor")),
        ("floor:segments=0", Subject("floor", (("segments", "0"),))),
        ("livekit:url=ws://h:1,pid=7", Subject("livekit", (("url", "ws://h:1"), ("pid", "7")))),
    ],
)
def test_targets_are_named_with_their_options(text: str, subject: Subject) -> None:
    assert Subject.parse(text) == subject


@pytest.mark.parametrize("text", ["", ":a=b", "floor:segments", "floor:=1"])
def test_what_names_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not like"):
        Subject.parse(text)


def test_the_command_line_writes_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    words = ["run", "meeting", "-n", "3", "--seconds", "0.5", "--target", "floor", "--no-harness", "--json", str(path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    report = Report.read(path)
    (measured,) = report.measurements
    assert (measured.system, measured.n) == ("floor", 3)
    assert 0 < measured.delivered <= measured.offered


@pytest.mark.parametrize("words", [["webinars"], ["webinar", "--target", "nobody"], ["webinar", "--loss", "2"]])
def test_the_command_line_says_what_is_wrong_in_one_line(words: list[str]) -> None:
    result = CliRunner().invoke(main, ["run", *words])
    assert result.exit_code != 0
    assert "Traceback" not in result.output


def test_the_list_names_scenarios_and_targets() -> None:
    output = CliRunner().invoke(main, ["list"]).output
    assert "webinar" in output
    assert "reflector" in output
