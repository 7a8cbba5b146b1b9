"""Figures from lines that clients might have said and counts that a bottleneck might have made."""

from typing import Any

import pytest

from bench.network.case import Case, Download, ViewerPlan
from bench.network.counts import DOWN, UP, Record
from bench.network.judge import freezes_of, judge, longest_gap_ms, view
from bench.network.link import Conditions, Fate, Outcome
from bench.network.run import Outcome as RunOutcome
from tests.bench.support.viewers import watched

KILOBIT = 1000


def run(**changes: Any) -> RunOutcome:
    """20 s, of which the second half has a tenth of the rate; packets of 1,000 bytes."""
    down = Conditions(rate=((0, 800 * KILOBIT), (10, 80 * KILOBIT)))
    case = Case("c", "t", 20, down, Conditions(), (ViewerPlan("v"),))
    record = Record(began=50, late_ms=1.0)
    for number in range(1000):  # 50 a second, 400 kbit/s; from 12 s on 5 a second, 40 kbit/s
        at = number / 50
        if at < 12 or number % 10 == 0:
            full = 10 <= at < 16
            outcome = Outcome.DROPPED if full and number % 2 else Outcome.ARRIVES
            record.add(50.001 + at, DOWN, "77", 1000, Fate(outcome, 0, 0.25 if full else 0.01))
    record.add(50.0, DOWN, "stun", 100, Fate(Outcome.ARRIVES, 0, 0.0))
    record.add(50.0, UP, "88", 100, Fate(Outcome.ARRIVES, 0, 0.0))
    fields = {"case": case, "system": "s", "record": record, "viewers": {"v": watched(20)}, "publisher": []}
    return RunOutcome(**{**fields, **changes})


def test_the_link_is_judged_by_phase() -> None:
    wide, narrow = judge(run()).links
    assert (wide.begin, wide.end, wide.capacity, wide.within_s, wide.dropped) == (0, 10, 800 * KILOBIT, 0, 0)
    assert wide.offered == wide.carried == pytest.approx(400 * KILOBIT, rel=0.01)
    assert wide.queue_p95_ms == pytest.approx(10)
    assert narrow.within_s == pytest.approx(2.0, abs=0.11)
    assert narrow.offered == pytest.approx((2 * 400 + 8 * 40) / 10 * KILOBIT, rel=0.01)
    assert narrow.carried < 0.65 * narrow.offered
    assert narrow.queue_p95_ms == pytest.approx(250)
    assert narrow.queue_over == pytest.approx(15 / 70, abs=0.02)  # 5 packets a second in 3 of the 7 s that count
    assert 0 <= narrow.dropped < 0.1


def test_a_publisher_behind_is_judged_by_the_way_up() -> None:
    case = Case("c", "t", 20, Conditions(), Conditions(rate=((0, 1e6),)), (ViewerPlan("v", False),), True)
    (link,) = judge(run(case=case)).links
    assert link.capacity == 1e6
    assert link.offered == 8 * 100 / 20


def test_an_unlimited_link_has_no_capacity() -> None:
    case = Case("c", "t", 20, Conditions(), Conditions(), (ViewerPlan("v"),), download=Download(5, 25))
    assert [link.capacity for link in judge(run(case=case)).links] == [None, None]


def test_the_bottleneck_must_keep_its_times() -> None:
    assert run().measured
    assert not run(record=Record(late_ms=5.1)).measured


def test_a_viewer_is_judged_by_what_it_showed() -> None:
    lines = watched(20, heights=lambda at: 720 if at < 10 else 360 if at < 12 else 180)
    first, second = (view("v", lines, begin, begin + 10) for begin in (0, 10))
    assert (first.lines, first.switches, first.freezes, first.concealed) == (720, 0, 0, 0)
    assert first.pictures == pytest.approx(150, abs=2)
    assert first.video_bps == pytest.approx(400 * KILOBIT, rel=0.02)
    assert (second.lines, second.switches, second.late_switches) == (180, 1, 1)
    assert second.oldest_ms == 80
    assert judge(run(viewers={"v": lines})).view("v", 1).lines == 180


def test_counters_begin_with_what_they_were_before_the_case() -> None:
    lines = [{**line, "at": line["at"] - 1} for line in watched(11, concealed=lambda at: 4800 * int(at))]
    figures = view("v", lines, 0, 10)
    assert figures.video_bps == pytest.approx(400 * KILOBIT, rel=0.02)
    assert figures.concealed == pytest.approx(0.1, rel=0.15)


def test_counters_of_a_client_that_connects_again_begin_anew() -> None:
    lines = [line for line in watched(20) if line["at"] < 6]
    lines.append({"at": 6.0, "event": "reconnecting"})
    lines += [{**line, "at": line["at"] + 6.05} for line in watched(4)]
    figures = view("v", lines, 0, 10)
    assert figures.reconnects == 1
    assert figures.video_bps == pytest.approx(400 * KILOBIT, rel=0.04)
    assert view("v", lines, 7, 10).reconnects == 0
    assert longest_gap_ms(concealing((4800, 1), (9600, 2), (0, 0), (960, 1)), 0.15, 1) == 20


def test_a_picture_that_stands_still_is_a_freeze_even_when_it_never_moves_again() -> None:
    def times(*holes: tuple[float, float]) -> list[float]:
        frames = [number / 15 for number in range(300)]
        return [at for at in frames if not any(begin <= at < end for begin, end in holes)]

    assert freezes_of(times(), 0, 20) == []
    assert freezes_of(times((5, 5.1)), 0, 20) == []
    assert freezes_of(times((5, 6)), 0, 20) == pytest.approx([1.0], abs=0.14)
    assert freezes_of(times((5, 6), (8, 30)), 0, 20) == pytest.approx([1.0, 12.0], abs=0.14)
    assert freezes_of(times((5, 15)), 0, 10) == pytest.approx([5.0], abs=0.14)
    assert freezes_of(times((5, 15)), 10, 20) == pytest.approx([5.0], abs=0.14)
    assert freezes_of([], 0, 20) == []


def test_a_viewer_that_never_saw_a_picture_saw_a_still_one() -> None:
    blind = [{**line, "pictures": []} for line in watched(10) if line["at"] >= 4]
    figures = view("v", blind, 0, 10)
    assert (figures.lines, figures.freezes, figures.first_s) == (0, 1, None)
    assert figures.frozen_s == pytest.approx(6)


def test_the_first_picture_is_waited_for_from_joining_on() -> None:
    late = [{**line, "pictures": [each for each in line["pictures"] if each[0] >= 5]} for line in watched(10)]
    joined = [line for line in late if line["at"] >= 3]
    assert view("v", joined, 0, 10).first_s == pytest.approx(2, abs=0.1)
    assert view("v", joined, 6, 10).first_s is None


def test_losses_that_were_repaired_do_not_count() -> None:
    lines = watched(10, lost=lambda at: int(at), again=lambda at: int(at) - 2 if at > 2 else 0)
    figures = view("v", lines, 0, 10)
    assert figures.lost == pytest.approx(2 / 500, rel=0.05)
    assert figures.again == pytest.approx(7 / 490, rel=0.05)


def concealing(*told: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"at": number / 10, "audio": {"concealed_samples": samples, "concealment_events": events}}
        for number, (samples, events) in enumerate(told)
    ]


def test_the_longest_gap_goes_on_over_several_lines() -> None:
    assert longest_gap_ms(concealing((0, 0), (0, 0)), 0, 1) == 0
    assert longest_gap_ms(concealing((0, 0), (960, 1), (960, 1), (1920, 2)), 0, 1) == 20
    assert longest_gap_ms(concealing((0, 0), (2400, 1), (7200, 1), (9600, 1), (9600, 1)), 0, 1) == 200
    assert longest_gap_ms(concealing((0, 0), (2880, 3)), 0, 1) == 20
    assert longest_gap_ms(concealing((0, 0), (4800, 1), (4800, 1), (5760, 2)), 0.25, 1) == 20


def test_audio_that_was_made_up_is_a_share() -> None:
    lines = watched(10, concealed=lambda at: 4800 * int(at))
    figures = view("v", lines, 0, 10)
    assert figures.concealed == pytest.approx(0.1, rel=0.15)
    assert figures.early_gap_ms == figures.gap_ms == 100


def test_a_viewer_that_came_later_is_judged_from_then_on() -> None:
    late = [line for line in watched(20) if line["at"] >= 12]
    judgement = judge(run(viewers={"v": watched(20), "late": late}))
    assert [(each.viewer, each.begin) for each in judgement.views] == [("v", 0), ("v", 10), ("late", 10)]
