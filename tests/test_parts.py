"""What measures or follows a real clock runs alone, real clients in two processes, all else in one for each core."""

import ast
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import LONGEST, PARTS, SHARED, Part, divided, part_of

ROOT = Path(__file__).parents[1]
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "thread_time"}
MEASURING = {"SessionProcess", "alternate", "bench.__main__"}
"""What starts a measurement, or the commands that do."""
PATIENT = {
    "tests/bench/network/test_forwarder.py": "a packet takes at least so long",
    "tests/clients/test_two_paths.py": "it waits until two seconds have passed in which all was well",
    "tests/sfu/control/net/test_tcp.py": "it waits for seconds before it gives up",
    "tests/sfu/media/net/test_frame_queue.py": "it waits for seconds before it gives up",
    "tests/sfu/media/test_frames.py": "it waits for seconds before it gives up",
    "tests/sfu/media/net/test_udp.py": "a stamp lies between two readings, however far these are apart",
    "tests/signaling/http/test_connection.py": "a handler that takes longer makes turns shorter",
}
"""Test files that read a clock, and why they may share the machine all the same."""
SOME: dict[Part, set[str]] = {
    "parallel": {"tests/examples/test_examples.py", "tests/sfu/control/test_mailbox.py"},
    "clients": {"tests/clients/test_matrix.py", "tests/examples/test_whep_player.py"},
    "alone": {
        "tests/bench/measure/test_run.py",
        "tests/clients/test_bottleneck.py",
        "tests/signaling/test_watchdog.py",
    },
}
"""Files that belong to one part as a whole."""
MARKERS = ("alone", "client")


def files_of_tests() -> list[Path]:
    return [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "node_modules" not in path.parts]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def used(path: Path) -> set[str]:
    """Names that a file imports or takes as an attribute, and the modules that it imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return found


def markers(path: Path) -> set[str]:
    """Markers that stand in a file, as `pytest.mark.NAME`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "mark"
    }


def test_a_file_that_reads_a_clock_says_what_runs_alone_or_is_patient() -> None:
    reading = {name(path): markers(path) for path in files_of_tests() if CLOCKS & used(path)}
    assert [file for file, found in reading.items() if file not in PATIENT and "alone" not in found] == []
    assert PATIENT.keys() - reading.keys() == set()


def test_a_file_that_measures_says_what_runs_alone() -> None:
    measuring = {name(path): markers(path) for path in files_of_tests() if MEASURING & used(path)}
    assert len(measuring) >= 3
    assert [file for file, found in measuring.items() if "alone" not in found] == []


def test_every_file_of_client_tests_is_marked_as_one() -> None:
    files = [path for path in files_of_tests() if path.parent.name == "clients" and "bench" not in path.parts]
    assert len(files) > 20
    assert [name(path) for path in files if "client" not in markers(path)] == []


def test_each_test_belongs_to_one_part(request: pytest.FixtureRequest) -> None:
    items = request.session.items
    chosen, others = divided(items, part_of(request.node))
    assert request.node in chosen
    assert sorted(map(id, chosen + others)) == sorted(map(id, items))
    assert not any(item.get_closest_marker(marker) for item in divided(items, "parallel")[0] for marker in MARKERS)


def test_the_longest_files_of_clients_come_first_in_the_order_of_their_list() -> None:
    assert set(LONGEST) <= {name(path) for path in files_of_tests() if "client" in markers(path)}
    told = collected("--part=clients", "tests/clients/test_webhooks.py", *reversed(LONGEST))
    files = dict.fromkeys(line.split("::")[0] for line in told.stdout.splitlines() if "::" in line)
    assert [*files] == [*LONGEST, "tests/clients/test_webhooks.py"]


def collected(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_leaves_the_others_out(part: Part) -> None:
    told = collected(f"--part={part}", *itertools.chain(*SOME.values()))
    assert told.returncode == 0, told.stdout
    assert {line.split("::")[0] for line in told.stdout.splitlines() if "::" in line} == SOME[part]


@pytest.mark.parametrize("arguments", [[], ["--part=alone"]])
def test_several_processes_are_refused_for_what_must_run_alone(arguments: list[str]) -> None:
    told = collected("-n2", *arguments, *SOME["parallel"])
    assert told.returncode == pytest.ExitCode.USAGE_ERROR
    assert all(f"--part={part}" in told.stderr for part in SHARED)


# scripts/run-tests

FAKE = """#!/usr/bin/env bash
echo "${NUMBA_BOUNDSCHECK:-0} $(basename "$0") $*" >>"$CALLS"
case "$*" in
*part=parallel*) exit "${PARALLEL:-0}" ;;
*part=clients*) exit "${CLIENTS:-0}" ;;
*part=alone*) exit "${ALONE:-0}" ;;
*compile*) exit "${COMPILE:-0}" ;;
*) exit "${REPORT:-0}" ;;
esac
"""


def run_tests(folder: Path, *arguments: str, **status: int) -> tuple[int, list[str]]:
    """Run the script with programs that end with these exit statuses; returns its own, and what it called."""
    for place in ("scripts/install-test-clients", ".venv/bin/python", ".venv/bin/aiosfu"):
        program = folder / place
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(FAKE)
        program.chmod(0o755)
    script = shutil.copy(ROOT / "scripts" / "run-tests", folder / "scripts")
    calls = folder / "calls"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {"CALLS": str(calls)} | {name: str(value) for name, value in status.items()}
    done = subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, calls.read_text().splitlines()


def test_all_tests_run_in_three_parts_and_the_kernels_once_more_with_checked_indices(tmp_path: Path) -> None:
    status, calls = run_tests(tmp_path)
    assert status == 0
    processes = len(os.sched_getaffinity(0))
    parallel, alone = f"--part=parallel --numprocesses={min(processes, 4)} --dist=loadfile", "--part=alone"
    clients = f"--part=clients --numprocesses={min(processes, 2)} --dist=loadfile --no-loadscope-reorder"
    ignored = " ".join(f"--ignore=tests/sfu/compiler/test_{each}.py" for each in ("kernel_cache", "parallel"))
    assert calls == [
        f"0 python -m pytest {parallel}",
        f"0 python -m pytest {clients}",
        f"0 python -m pytest {alone}",
        "1 aiosfu compile",
        f"1 python -m pytest {parallel} tests/sfu {ignored}",
        f"1 python -m pytest {alone} tests/sfu {ignored}",
        "1 install-test-clients --report",
    ]


def test_arguments_go_to_all_parts_and_leave_the_checked_run_out(tmp_path: Path) -> None:
    _, calls = run_tests(tmp_path, "-k", "one or two")
    assert [call.split()[1] for call in calls] == ["python"] * len(PARTS) + ["install-test-clients"]
    assert all(call.endswith(" -k one or two") for call in calls[: len(PARTS)])


@pytest.mark.parametrize("arguments", [(), ("-k", "name")])
@pytest.mark.parametrize("program", ["PARALLEL", "CLIENTS", "ALONE", "REPORT"])
def test_a_part_that_fails_fails_the_run_and_keeps_nothing_from_running(
    tmp_path: Path, arguments: tuple[str, ...], program: str
) -> None:
    good = run_tests(tmp_path / "good", *arguments)
    bad = run_tests(tmp_path / "bad", *arguments, **{program: 1})
    assert (good[0], bad[0]) == (0, 1)
    assert good[1] == bad[1]


def test_kernels_that_do_not_compile_fail_the_run(tmp_path: Path) -> None:
    assert run_tests(tmp_path, COMPILE=1)[0] == 1


def test_a_choice_may_leave_parts_empty_but_not_all(tmp_path: Path) -> None:
    none = int(pytest.ExitCode.NO_TESTS_COLLECTED)
    names = ("PARALLEL", "CLIENTS", "ALONE")
    for some in itertools.combinations(names, 2):
        assert run_tests(tmp_path / "-".join(some), "-k", "x", **dict.fromkeys(some, none))[0] == 0
    assert run_tests(tmp_path / "all", "-k", "x", **dict.fromkeys(names, none))[0] == 1
