"""The engine beside the floor, in small. No test asserts a time."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.accounting import UDP_COUNTERS, cores
from bench.generator.recording import per_frame, recorded_packets
from bench.measure.forward import FRAMES, RECORDED, SMOOTH, alternate, engine, floor_of, load
from bench.measure.run import SessionProcess, Subject
from bench.results import Measurement, Report
from bench.scenarios import Scenario

pytestmark = pytest.mark.alone

SUBSCRIBERS, RATE, SECONDS = 3, 2_000, 1.0
CHOICES = Scenario("x", "", "participants", 3, 1.0, audio=True, video="simulcast", large=1, switches_per_second=4.0)


def check(measured: Measurement, system: str, repeat: int) -> None:
    assert (measured.system, measured.repeat) == (system, repeat)
    assert measured.delivered == measured.offered == measured.latency.count
    assert measured.offered > 0
    assert measured.offered % SUBSCRIBERS == 0
    assert measured.cpu_us_per_packet > 0
    assert 0 < measured.generator_busy < 1  # it does not sleep, but it has nothing to do most of the time
    assert 0 < measured.latency.p50 <= measured.latency.maximum < 60e6  # a time that was read where it was written


@pytest.mark.parametrize("name", [SMOOTH, FRAMES, RECORDED])
def test_floor_and_engine_deliver_everything_in_turns(name: str) -> None:
    scenario = load(name, SUBSCRIBERS, RATE, SECONDS)
    done: list[int] = []
    found = alternate(scenario, (floor_of(scenario), engine()), 2, done.append)
    assert done == [1] * 4
    for place, measured in enumerate(found):
        check(measured, ("floor", "engine")[place % 2], place // 2)
        assert not measured.drops.keys() - set(UDP_COUNTERS)  # those are of everybody on this machine


def test_only_the_floor_of_single_packets_goes_without_segments() -> None:
    floors = [str(floor_of(load(name, SUBSCRIBERS, RATE, SECONDS))) for name in (SMOOTH, FRAMES, RECORDED)]
    assert floors == ["floor:segments=0", "floor", "floor"]


def test_the_publishers_rate_follows_from_the_rate_of_all_and_their_number() -> None:
    layers = [load(name, 300, 60_000, 1.0).tracks[0].layers[0] for name in (SMOOTH, FRAMES, RECORDED)]
    assert [layer.packets_per_second for layer in layers] == [200.0] * 3
    assert [layer.per_burst for layer in layers] == [1, 10, 0]
    assert per_frame(recorded_packets(layers[2].pattern)) > 5


def test_systems_run_on_the_cores_that_they_are_given() -> None:
    servers, own = cores()
    scenario = load(SMOOTH, 1, RATE, SECONDS)
    before = os.sched_getaffinity(0)
    for subject in (engine(), Subject("floor")):
        with SessionProcess(subject, scenario, servers[:1]) as session:
            assert os.sched_getaffinity(session.pid) == {servers[0]}
    assert os.sched_getaffinity(0) == before
    assert servers[0] != own or len(before) == 1


def test_the_engine_can_be_measured_as_other_systems_are() -> None:
    with SessionProcess(engine(2), CHOICES) as session:
        measured = session.measure()
    assert measured.system == "engine-2-threads"
    assert 0 < measured.delivered <= measured.offered
    assert not any("authenticate" in note or "choose" in note for note in measured.notes)


def test_the_command_prints_its_columns_and_writes_a_report(tmp_path: Path) -> None:
    path = tmp_path / "forward.json"
    words = ["forward", "-n", "2", "--rate", "500", "--seconds", "0.5", "--repeats", "1", "--json", str(path)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert all(word in result.output for word in ("packets/s", "server / floor", "gen. busy", "Chromium", "Budgets"))
    found = [(each.scenario, each.system, each.n) for each in Report.read(path).measurements]
    assert found == [(name, system, 2) for name in (SMOOTH, FRAMES, RECORDED) for system in ("floor", "engine")]
