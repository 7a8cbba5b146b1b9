import io

from rich.console import Console

from bench.report.compare import comparison, pairs, print_comparison
from bench.report.summary import summarize
from bench.results import Report
from tests.bench.support.reports import latency, measurement, report


def printed(a: Report, b: Report) -> str:
    text = io.StringIO()
    print_comparison(a, b, Console(file=text, width=130))
    return text.getvalue()


def cells(a: Report, b: Report) -> list[tuple[str, ...]]:
    return [row.cells for row in comparison(a, b).rows]


def runs(system: str, *costs: float, **changes: object) -> Report:
    found = (measurement(system, 50, k, cpu_us_per_packet=cost, **changes) for k, cost in enumerate(costs))
    return report(measurements=tuple(found), knees=())


def test_the_same_system_is_compared_with_itself() -> None:
    found = cells(runs("aiosfu", 4.0, 5.0, 6.0), runs("aiosfu", 2.0, 3.0, 2.4))
    assert found[0] == (
        "webinar",
        "50",
        "aiosfu",
        "CPU us per packet",
        "5.00 (4.00..6.00)",
        "2.40 (2.00..3.00)",
        "0.48 (0.40..0.60)",
    )
    assert [row[3] for row in found] == ["CPU us per packet", "p50 us", "p99 us", "loss", "KiB per subscriber"]


def test_messages_are_compared_as_messages() -> None:
    found = cells(runs("aiosfu", 4.0, unit="message"), runs("aiosfu", 2.0, unit="message"))
    assert found[0][3] == "CPU us per message"


def test_repeats_that_disagree_are_marked() -> None:
    found = cells(runs("aiosfu", 4.0, 5.0), runs("aiosfu", 5.0, 4.0))
    assert found[0][-1] == "1.00 (0.80..1.25) ~"
    assert found[1][-1] == "1.00"


def test_reports_of_different_systems_are_compared_in_pairs() -> None:
    found = cells(report(("aiosfu",)), report(("naive",)))
    assert {row[2] for row in found} == {"aiosfu -> naive"}
    assert {row[1] for row in found} == {"50", "300", "1,000"}
    assert found[0][-1] == "15.0"


def test_systems_of_one_report_only_are_left_out_when_there_are_common_ones() -> None:
    left, right = summarize(report().measurements), summarize(report(("floor", "aiosfu")).measurements)
    assert {(a.system, b.system) for a, b in pairs(left, right)} == {("floor", "floor"), ("aiosfu", "aiosfu")}
    assert all((a.scenario, a.n, a.load) == (b.scenario, b.n, b.load) for a, b in pairs(left, right))


def test_there_is_no_ratio_to_nothing() -> None:
    clean, lossy = runs("aiosfu", 4.0, delivered=240_000), runs("aiosfu", 4.0, delivered=120_000)
    (row,) = [row for row in cells(clean, lossy) if row[3] == "loss"]
    assert row[4:] == ("0%", "50%", "-")
    assert [row[3] for row in cells(clean, clean)] == ["CPU us per packet", "p50 us", "p99 us", "KiB per subscriber"]


def test_another_machine_profile_or_version_is_pointed_out() -> None:
    other = report(machine="Another", profile="SRTP_AES128_CM_SHA1_80", versions={"python": "3.12.0"})
    text = printed(report(), other)
    assert "! another machine: Test CPU, 2 CPUs, Linux 6 -> Another" in text
    assert "! another SRTP profile: SRTP_AEAD_AES_128_GCM -> SRTP_AES128_CM_SHA1_80" in text
    assert "! another python: 3.11.7 -> 3.12.0" in text
    assert "! another" not in printed(report(), report())


def test_the_table_says_which_is_better_and_what_the_signs_mean() -> None:
    text = printed(runs("aiosfu", 4.0), runs("aiosfu", 8.0, latency=latency(9)))
    assert "below 1, b needs less" in text
    assert "2.00" in text
    assert "~ the repeats do not agree" in text


def test_reports_without_anything_in_common_say_so() -> None:
    assert "nothing" not in printed(report(), report())
    a, b = runs("aiosfu", 4.0), runs("aiosfu", 4.0, scenario="audio")
    assert "no scenario of the same size in common" in printed(a, b)


def test_a_ramp_names_its_load() -> None:
    a, b = runs("aiosfu", 4.0, load=0.5), runs("aiosfu", 4.0, load=0.5)
    assert cells(a, b)[0][0] == "webinar at 50%"
