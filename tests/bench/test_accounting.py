import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import accounting

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate()
"""
BURN = "sum(range(20_000_000))"


@pytest.fixture
def family() -> Iterator[int]:
    """A process with one child; the child's `up` says that both run."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == b"up\n"
        yield parent.pid
        parent.stdin.close()


def test_a_tree_is_a_process_with_its_descendants_and_counts_them_all(family: int) -> None:
    tree = accounting.process_tree(family)
    assert tree[0] == family
    assert len(tree) == 2
    assert set(tree) < set(accounting.process_tree(os.getpid()))
    assert accounting.tree_cpu_ns(family) >= accounting.cpu_ns(tree[1]) > 0
    assert accounting.tree_resident_bytes(family) > accounting.resident_bytes(family) > 0


def test_the_time_of_children_that_ended_stays_counted() -> None:
    before = accounting.tree_cpu_ns(os.getpid())
    subprocess.run([sys.executable, "-c", BURN], check=True)
    own = accounting.cpu_ns(os.getpid())
    assert accounting.tree_cpu_ns(os.getpid()) - before > 0
    assert accounting.tree_cpu_ns(os.getpid()) > own


def test_a_process_that_is_gone_is_said_to_be() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert accounting.process_tree(gone.pid) == [gone.pid]
    with pytest.raises(FileNotFoundError):
        accounting.tree_cpu_ns(gone.pid)


def test_core_times_are_counters_of_the_cores_that_were_asked_for() -> None:
    one, other, both = (accounting.core_times(cores) for cores in ((0,), (1,), (0, 1)))
    assert 0 < one.total <= both.total
    assert one.softirq <= both.softirq
    assert other.total <= both.total
    later = accounting.core_times((0,))
    spent = later - one
    assert min(spent.softirq, spent.steal, spent.total) >= 0
    assert accounting.core_times(()).total == 0


def test_a_full_receive_queue_is_counted_for_its_process_and_for_the_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        receiver.bind(("127.0.0.1", 0))
        dropped, errors = accounting.socket_drops(os.getpid()), accounting.udp_errors()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(bytes(1000), receiver.getsockname())
        assert accounting.socket_drops(os.getpid()) - dropped > 50
        after = accounting.udp_errors(os.getpid())
        assert after["RcvbufErrors"] - errors["RcvbufErrors"] > 50
        assert after.keys() == set(accounting.UDP_COUNTERS)


def test_processes_are_confined_and_the_caller_is_not_afterwards() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with accounting.confined((core,)):
        text = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True)
    assert text.strip() == str({core})
    assert os.sched_getaffinity(0) == before


def test_the_machine_and_what_runs_on_it_are_named() -> None:
    assert os.uname().release in accounting.machine()
    versions = accounting.versions()
    assert versions["kernel"] == os.uname().release
    assert versions["python"] == sys.version.split()[0]
    assert versions["softirq time"] in {"beside CPU time", "inside CPU time"}
    assert all(versions[name] for name in ("numba", "numpy", "pylibsrtp", "libsrtp", "libsrtp crypto"))


def test_names_with_blanks_and_brackets_do_not_confuse_proc(tmp_path: Path) -> None:
    program = tmp_path / "a ) R 1 b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as sleeper:
        assert sleeper.pid in accounting.process_tree(os.getpid())
        sleeper.kill()
