"""A turn of the loop over real loopback sockets with a hand-driven clock, and the thread around it."""

import contextlib
import inspect
import os
import re
import select
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from aioice import stun as aioice_stun

from sfu.control import media_thread
from sfu.control.media_thread import MediaThread
from sfu.control.net.sockets import Sockets
from sfu.media import loop, timers
from sfu.media.net.paths import CONSENT_TIMEOUT_NS
from sfu.queues import control
from sfu.schema.capacities import RX_BYTES, RX_SLOTS, TRANSPORTS
from sfu.schema.codes import Command, NoticeKind, RowState
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import slow_t
from tests.sfu.support.commands import push_command
from tests.sfu.support.ice import (
    SECOND,
    UFRAG,
    binding_request,
    drop_counts,
    notices,
    ufrag_number,
    write_credentials,
)

NOW = 100 * SECOND
ROW, GENERATION = 3, 5
PATIENCE_S = 10.0
TIMERS = re.findall(r"now >= thread\.(\w+)", inspect.getsource(timers.run_timers.py_func))
"""The columns that say when a pass is due."""
NEW_UFRAG, NEW_PASSWORD = "newerNEW", "n" * 24
DTLS, RTP = b"\x16" + bytes(99), b"\x80\x60" + bytes(98)


class Node:
    """One memory with a socket, and a client's socket."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.memory.open_wakeups()
        self.sockets = Sockets(self.memory, 0, ("127.0.0.1",))
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.bind(("127.0.0.1", 0))
        self.client.settimeout(PATIENCE_S)

    def close(self) -> None:
        self.client.close()
        self.sockets.close()
        self.memory.close_wakeups()

    def command(self, kind: int, row: int = ROW, generation: int = GENERATION, **fields: int) -> None:
        assert push_command(self.memory, kind, row, generation, **fields)

    def turn(self, now: int = NOW) -> None:
        loop.turn(self.memory.record, self.memory.arena, now)

    def open(self, row: int = ROW) -> None:
        write_credentials(self.memory, row)
        self.transport["generation"] = GENERATION
        self.command(Command.OPEN_TRANSPORT, row)

    @property
    def transport(self) -> np.void:
        record: np.void = self.memory.table("transports")[ROW]
        return record

    def send(self, data: bytes, via: socket.socket | None = None) -> None:
        (via or self.client).sendto(data, ("127.0.0.1", self.sockets.port))

    def check(self, now: int = NOW, ufrag: str = UFRAG, **parameters: str) -> bool:
        """One check through a turn; whether it was answered."""
        self.send(binding_request(ufrag=ufrag, **parameters))  # type: ignore[arg-type]
        self.turn(now)
        if not select.select([self.client], [], [], 0)[0]:
            return False
        response = aioice_stun.parse_message(self.client.recv(2048))
        return bool(response.attributes["XOR-MAPPED-ADDRESS"] == self.client.getsockname())


@pytest.fixture
def node() -> Iterator[Node]:
    with contextlib.closing(Node()) as node:
        yield node


@pytest.fixture(scope="module")
def compiled_loop() -> None:
    """The loop compiled or loaded: in the thread that would take part of somebody's patience."""
    with contextlib.closing(Node()) as node:
        node.memory.thread["stop"] = 1
        loop.media_loop(node.memory.record, node.memory.arena)


def test_transport_answers_checks_from_the_turn_that_opens_it(node: Node) -> None:
    assert not node.check()
    assert drop_counts(node.memory) == {"stun_unknown_ufrag": 1}
    node.open()
    assert node.check()
    assert notices(node.memory) == [(NoticeKind.PATH_SELECTED, ROW, int(node.transport["path"]))]


def test_commands_of_another_generation_or_without_a_row_are_ignored(node: Node) -> None:
    node.open()
    node.command(Command.CLOSE_TRANSPORT, generation=GENERATION - 1)
    node.command(Command.CLOSE_TRANSPORT, row=-1)
    node.command(Command.CLOSE_TRANSPORT, row=TRANSPORTS)
    for kind in range(6, 13):
        node.command(kind, row=1 << 30, generation=0)
        node.command(kind, row=-1, generation=0)
    node.command(99)
    node.turn()
    assert node.transport["state"] == RowState.OPEN
    assert notices(node.memory) == []


def test_closing_frees_ufrag_and_paths_and_gives_notice_once(node: Node) -> None:
    free = int(node.memory.thread["free_path"])
    node.open()
    node.check()
    notices(node.memory)
    node.command(Command.CLOSE_TRANSPORT)
    node.command(Command.CLOSE_TRANSPORT)
    node.turn()
    assert node.transport["state"] == RowState.FREE
    assert notices(node.memory) == [(NoticeKind.CLOSED_TRANSPORT, ROW, 0)]
    assert not node.memory.table("ufrag_slots").any()
    assert not node.memory.table("path_slots").any()
    assert node.memory.thread["free_path"] == free
    assert node.memory.thread["open_transports"] == 0
    assert not node.check()


def test_ice_restart_answers_new_and_old_credentials_and_the_next_one_forgets_the_oldest(node: Node) -> None:
    node.open()
    for ufrag, password in ((NEW_UFRAG, NEW_PASSWORD), ("thirdTHI", "t" * 24)):
        node.transport["next_ufrag"] = ufrag_number(ufrag)
        node.transport["next_password"] = np.frombuffer(password.encode(), np.uint8)
        node.command(Command.NEW_CREDENTIALS)
        assert node.check(ufrag=ufrag, password=password)
        assert not node.check(ufrag=ufrag, password="wrong" * 5)
        assert node.transport["ice_generation"] > 0
    assert node.check(ufrag=NEW_UFRAG, password=NEW_PASSWORD)
    assert not node.check(ufrag=UFRAG)


def test_keys_and_maps_are_taken_over(node: Node) -> None:
    node.open()
    node.command(Command.SET_MEDIA, other_row=77)
    node.command(Command.START_SRTP, srtp_in=1 << 46, srtp_out=1 << 45)
    node.turn()
    assert node.transport["media"] == 77
    assert (node.transport["srtp_in"], node.transport["srtp_out"], node.transport["secure"]) == (1 << 46, 1 << 45, 1)
    node.transport["srtp_in"] = node.transport["srtp_out"] = 0


def test_nothing_but_checks_is_taken_from_an_address_that_never_passed_one(node: Node) -> None:
    node.open()
    node.check()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        node.send(DTLS, stranger)
        node.send(RTP, stranger)
        node.turn()
    assert drop_counts(node.memory) == {"unknown_address": 2}


def test_dtls_of_a_checked_address_goes_to_the_control_thread(node: Node) -> None:
    node.open()
    node.check()
    node.send(DTLS)
    node.turn()
    out = np.zeros(1, slow_t)
    assert control.take_slow(node.memory.record, out) == 1
    assert (out[0]["transport"], out[0]["generation"], out[0]["path"]) == (ROW, GENERATION, node.transport["path"])
    assert out[0]["data"][:100].tobytes() == DTLS
    assert os.eventfd_read(int(node.memory.thread["control_fd"])) > 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (RTP, "not_ready"),
        (b"\x80\xc8" + bytes(26), "not_ready"),
        (b"", "garbage"),
        (b"\x80", "garbage"),
        (b"\x80\x60" + bytes(5), "garbage"),
        (b"\x04" + bytes(50), "garbage"),
        (b"\x40" + bytes(50), "garbage"),
        (b"\xff" * 50, "garbage"),
        (b"\x80" + bytes(RX_BYTES), "truncated"),
    ],
)
def test_datagram_that_fits_nothing_is_counted_by_reason(node: Node, data: bytes, reason: str) -> None:
    node.open()
    node.check()
    node.send(data)
    node.turn()
    assert drop_counts(node.memory) == {reason: 1}


def test_one_socket_cannot_keep_a_turn_for_ever(node: Node) -> None:
    total = RX_SLOTS * (loop.MAX_BATCHES + 1)
    for _ in range(total):
        node.send(b"\xff")
    node.turn()
    assert drop_counts(node.memory) == {"unknown_address": RX_SLOTS * loop.MAX_BATCHES}
    node.turn()
    assert drop_counts(node.memory) == {"unknown_address": total}


def test_passes_run_when_due_and_not_before(node: Node) -> None:
    node.open()
    node.check()
    columns = ("feedback_ns", "reports_ns", "levels_ns", "liveness_ns", "consent_ns")
    periods = (timers.FEEDBACK_NS, timers.REPORTS_NS, timers.LEVELS_NS, timers.LIVENESS_NS, timers.CONSENT_NS)
    assert [int(node.memory.thread[name]) - NOW for name in columns] == list(periods)
    node.turn(NOW + timers.FEEDBACK_NS - 1)
    assert node.memory.thread["feedback_ns"] == NOW + timers.FEEDBACK_NS
    late = NOW + 10 * timers.FEEDBACK_NS + 1
    node.turn(late)
    assert node.memory.thread["feedback_ns"] == late + timers.FEEDBACK_NS, "missed periods are not made up for"


@pytest.mark.parametrize("timer", TIMERS)
def test_the_loop_wakes_for_every_timer(node: Node, timer: str) -> None:
    thread = node.memory.thread
    for each in TIMERS:
        thread[each] = NOW + SECOND
    thread["probing"] = 1  # without a probe cluster its timer does not count
    assert timers.next_timer(node.memory.record) == NOW + SECOND
    thread[timer] = NOW + 1
    assert timers.next_timer(node.memory.record) == NOW + 1


def test_consent_expiry_is_noticed_by_a_turn(node: Node) -> None:
    node.open()
    node.check()
    notices(node.memory)
    node.turn(NOW + CONSENT_TIMEOUT_NS)
    node.turn(NOW + 2 * CONSENT_TIMEOUT_NS)
    assert notices(node.memory) == [(NoticeKind.CONSENT_EXPIRED, ROW, 0)]


@pytest.mark.usefixtures("compiled_loop")
def test_thread_answers_checks_and_stops(node: Node) -> None:
    errors: list[BaseException] = []
    thread = MediaThread(node.memory, errors.append)
    assert thread.cpu_seconds() == 0
    node.open()
    thread.start()
    try:
        for _ in range(3):
            thread.wake()
            node.send(binding_request())
            assert aioice_stun.parse_message(node.client.recv(2048)).message_class is aioice_stun.Class.RESPONSE
        assert select.select([int(node.memory.thread["control_fd"])], [], [], PATIENCE_S)[0]
        used = thread.cpu_seconds()
        assert used > 0
    finally:
        thread.stop()
    assert errors == []
    assert thread.cpu_seconds() == used, "of a thread that has ended nothing is asked"
    assert not thread.failed
    thread.stop()


@pytest.mark.usefixtures("compiled_loop")
def test_thread_can_be_started_again(node: Node) -> None:
    thread = MediaThread(node.memory, lambda error: None)
    node.open()
    for _ in range(2):
        thread.start()
        node.send(binding_request())
        assert node.client.recv(2048)
        thread.stop()


class Script:
    """Takes media_loop's place: one step per call, then waits for the stop."""

    def __init__(self, memory: Memory, steps: list[tuple[int, Exception]], turns_between: int = 0) -> None:
        self._memory = memory
        self._steps = steps
        self._turns_between = turns_between
        self.finished = threading.Event()

    def __call__(self, state: object, arena: object) -> None:
        thread = self._memory.thread
        thread["turns"] += self._turns_between
        if self._steps:
            thread["row_in_hand"], error = self._steps.pop(0)
            raise error
        self.finished.set()
        while not thread["stop"]:
            select.select([int(thread["wake_fd"])], [], [], PATIENCE_S)


def run_script(node: Node, monkeypatch: pytest.MonkeyPatch, script: Script) -> tuple[MediaThread, list[BaseException]]:
    errors: list[BaseException] = []
    monkeypatch.setattr(media_thread, "PAUSE_S", 0)
    monkeypatch.setattr(loop, "media_loop", script)
    node.open()
    node.transport["state"] = RowState.OPEN
    node.memory.thread["transport_end"] = ROW + 1
    thread = MediaThread(node.memory, errors.append)
    thread.start()
    return thread, errors


def test_exception_breaks_the_transport_in_hand_and_the_loop_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[tuple[int, Exception]] = [
        (ROW, ValueError("bug")),
        (ROW, ValueError("again")),
        (7, KeyError("other")),
    ]
    script = Script(node.memory, list(failures))
    thread, errors = run_script(node, monkeypatch, script)
    assert script.finished.wait(PATIENCE_S)
    thread.stop()
    assert notices(node.memory) == [(NoticeKind.TRANSPORT_BROKEN, ROW, 0), (NoticeKind.TRANSPORT_BROKEN, 7, 0)]
    assert errors == [error for _, error in failures], "the second one is reported as the first that is nobody's"
    assert node.memory.thread["row_in_hand"] == -1
    assert select.select([int(node.memory.thread["control_fd"])], [], [], 0)[0]


def test_endless_exceptions_of_nobody_end_the_thread_and_break_every_transport(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("bug")
    script = Script(node.memory, [(-1, error)] * (media_thread.MAX_FAILURES + 1))
    thread, errors = run_script(node, monkeypatch, script)
    assert thread._thread is not None
    thread._thread.join(PATIENCE_S)
    assert thread.failed
    assert errors == [error], "reported once, not a hundred times"
    assert "and ends" in caplog.text
    assert notices(node.memory) == [(NoticeKind.TRANSPORT_BROKEN, ROW, 0)]
    thread.stop()


def test_rare_exceptions_of_nobody_never_end_the_thread(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    count = media_thread.MAX_FAILURES + 5
    script = Script(node.memory, [(-1, ValueError("bug"))] * count, turns_between=media_thread.CALM_TURNS)
    thread, errors = run_script(node, monkeypatch, script)
    assert script.finished.wait(PATIENCE_S)
    thread.stop()
    assert len(errors) == count
    assert not thread.failed
