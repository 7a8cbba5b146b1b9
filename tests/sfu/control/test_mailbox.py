"""The control thread's end of the queues."""

import numpy as np
import pytest

from sfu.control import mailbox
from sfu.control.mailbox import Datagram, Mailbox, Notice
from sfu.errors import TableFull
from sfu.queues import control
from sfu.queues.notices import notice
from sfu.schema.capacities import COMMAND_QUEUE, COMMANDS, STREAMS
from sfu.schema.codes import Command, NoticeKind
from sfu.schema.memory import Memory
from sfu.schema.queue_tables import COMMAND_FIELDS


class Ends:
    """A mailbox, and the media thread's hand on the queues."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.woken = 0
        self.mailbox = Mailbox(self.memory, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def take_commands(self) -> list[tuple[int, int]]:
        """(kind, row) of everything in the queue, which is empty afterwards."""
        queue = self.memory.table("queues")[COMMAND_QUEUE]
        indices = np.arange(int(queue["read"]), int(queue["written"])) & (COMMANDS - 1)
        queue["read"] = queue["written"]
        taken = self.memory.table("commands")[indices]
        return list(zip(taken["kind"].tolist(), taken["row"].tolist(), strict=True))


@pytest.fixture
def ends() -> Ends:
    return Ends()


def test_command_arrives_with_all_its_fields_and_wakes(ends: Ends) -> None:
    ends.mailbox.push(Command.START_SRTP, 3, 4, srtp_in=1 << 60, srtp_out=1 << 63)
    command = ends.memory.table("commands")[0]
    fields = [int(command[name]) for name in ("kind", "row", "generation", "srtp_in", "srtp_out", "spatial")]
    assert fields == [Command.START_SRTP, 3, 4, 1 << 60, 1 << 63, 0]
    assert ends.woken == 1


@pytest.mark.parametrize(
    "fields", [{}, {"spatial": 1}, {"spatial": 1, "temporal": 2, "priority": 0, "pixels": 0, "layer": 0}]
)
def test_a_command_takes_all_fields_of_its_kind_and_no_others(ends: Ends, fields: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"SET_LAYERS takes \['pixels', 'priority', 'spatial', 'temporal'\]"):
        ends.mailbox.push(Command.SET_LAYERS, 1, 1, **fields)
    assert ends.mailbox.waiting == 0
    assert ends.take_commands() == []


def test_every_command_can_be_sent(ends: Ends) -> None:
    for kind in Command:
        ends.mailbox.push(kind, 1, 1, **dict.fromkeys(COMMAND_FIELDS[kind], 1))
    assert ends.take_commands() == [(kind, 1) for kind in Command]


def test_commands_that_do_not_fit_wait_in_order(ends: Ends) -> None:
    for row in range(COMMANDS + 100):
        ends.mailbox.push(Command.SET_PAUSED, row, 1, paused=1)
    assert ends.mailbox.waiting == 100
    taken = ends.take_commands()
    ends.mailbox.flush()
    taken += ends.take_commands()
    assert [row for _, row in taken] == list(range(COMMANDS + 100))
    assert ends.mailbox.waiting == 0


def test_waiting_commands_are_bounded_but_those_that_open_or_close_a_row_are_not_refused(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "MAX_WAITING_COMMANDS", 10)
    for row in range(COMMANDS + 10):
        ends.mailbox.push(Command.SET_CODECS, row, 1, codecs=0)
    with pytest.raises(TableFull, match="commands"):
        ends.mailbox.push(Command.SET_CODECS, 0, 1, codecs=0)
    for kind in (
        Command.OPEN_TRANSPORT,
        Command.OPEN_TRACK,
        Command.OPEN_SUBSCRIPTION,
        Command.CLOSE_SUBSCRIPTION,
        Command.CLOSE_TRACK,
        Command.CLOSE_TRANSPORT,
    ):
        ends.mailbox.push(kind, 0, 1, **dict.fromkeys(COMMAND_FIELDS[kind], 0))
    assert ends.mailbox.waiting == 16


def test_of_settings_that_wait_only_the_newest_of_a_row_does_and_refuses_nobody(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "MAX_WAITING_COMMANDS", 10)
    for row in range(COMMANDS):
        opening = dict.fromkeys(COMMAND_FIELDS[Command.OPEN_SUBSCRIPTION], 0)
        ends.mailbox.push(Command.OPEN_SUBSCRIPTION, row, 1, **opening)
    for spatial in range(1000):  # what one client asks for again and again
        ends.mailbox.push(Command.SET_LAYERS, 5, 1, spatial=spatial, temporal=3, priority=0, pixels=0)
        ends.mailbox.push(Command.REQUEST_KEY_FRAME, 7, 1)
    ends.mailbox.push(Command.OPEN_TRACK, 9, 1)
    assert ends.mailbox.waiting == 3
    ends.take_commands()
    ends.mailbox.flush()
    assert [int(ends.memory.table("commands")[n]["spatial"]) for n in range(3)] == [0, 999, 0]
    assert ends.take_commands() == [(Command.OPEN_TRACK, 9), (Command.SET_LAYERS, 5), (Command.REQUEST_KEY_FRAME, 7)]


def test_notices_come_in_batches_and_whole(ends: Ends) -> None:
    ends.memory.table("streams")["track"] = np.arange(STREAMS)
    ends.memory.table("streams")["announced"] = 0xFFFFFFFF | 3 << 32
    ends.memory.table("tracks")["generation"] = 2
    count = mailbox.NOTICE_BATCH + 300
    for row in range(count):
        notice(ends.memory.record, NoticeKind.STREAM_STARTED, row)
    taken: list[Notice] = []
    while batch := ends.mailbox.take_notices():
        assert len(batch) <= mailbox.NOTICE_BATCH
        taken += batch
    assert taken == [Notice(NoticeKind.STREAM_STARTED, row, 2, 0, 0xFFFFFFFF | 3 << 32) for row in range(count)]
    notice(ends.memory.record, NoticeKind.STREAM_STARTED, 4)
    assert [each.row for each in ends.mailbox.take_notices()] == [4]


def test_datagrams_come_in_batches(ends: Ends) -> None:
    ends.memory.table("rx")[0][:5] = list(b"hello")
    ends.memory.table("transports")[7]["generation"] = 9
    control.push_slow(ends.memory.record, 7, 2, 0, 5)
    control.push_slow(ends.memory.record, 7, 2, 0, 4)
    assert ends.mailbox.take_datagrams() == [Datagram(7, 9, 2, b"hello"), Datagram(7, 9, 2, b"hell")]
    assert not ends.mailbox.take_datagrams()
    for _ in range(mailbox.SLOW_BATCH + 1):
        control.push_slow(ends.memory.record, 7, 2, 0, 4)
    assert [len(ends.mailbox.take_datagrams()) for _ in range(3)] == [mailbox.SLOW_BATCH, 1, 0]
