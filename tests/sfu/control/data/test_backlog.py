"""Who is held back by what waits for a slow receiver."""

import pytest

from sfu.control.data import backlog
from sfu.control.data.backlog import MESSAGE_BYTES, Backlog, Ledger, Message

SIZE = 1000
LAG = backlog.MAX_LAG_BYTES


class Sender:
    """The window of a sender, as messages keep it."""

    def __init__(self) -> None:
        self.held = 0

    def hold_window(self, size: int) -> None:
        self.held += size

    def release_window(self, size: int) -> None:
        self.held -= size


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_LAG_BYTES", 10 * SIZE)
    monkeypatch.setattr(backlog, "MAX_TOTAL_LAG_BYTES", 30 * SIZE)
    monkeypatch.setattr(backlog, "CROWDED_LAG_BYTES", 2 * SIZE)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def message(ledger: Ledger, sender: Sender | None) -> Message:
    return Message(bytes(SIZE - MESSAGE_BYTES), ledger, sender)


def test_only_messages_too_far_back_keep_their_senders_window(ledger: Ledger) -> None:
    early, late, waiting = Sender(), Sender(), Backlog()
    for sender, count in ((early, 10), (late, 3)):
        for _ in range(count):
            waiting.append(message(ledger, sender))
    assert (early.held, late.held) == (0, 3 * SIZE)
    for left in (2, 1, 0):
        waiting.popleft()
        assert late.held == left * SIZE
    assert not waiting.holds_back


def test_message_is_given_back_by_the_slowest_of_its_receivers(ledger: Ledger) -> None:
    sender, receivers = Sender(), [Backlog() for _ in range(3)]
    for _ in range(12):
        one = message(ledger, sender)
        for each in receivers:
            each.append(one)
    assert (sender.held, ledger.total) == (2 * SIZE, 12 * SIZE), "each message counts once"
    for each in receivers[:2]:
        while each:
            each.popleft()
    assert sender.held == 2 * SIZE
    receivers[2].popleft()
    receivers[2].popleft()
    assert (sender.held, ledger.total) == (0, 10 * SIZE)
    receivers[2].clear()
    assert ledger.total == 0


def test_receivers_may_lag_less_while_much_waits_in_the_whole_server(ledger: Ledger) -> None:
    others, sender, slow = [Backlog() for _ in range(4)], Sender(), Backlog()
    for each in others:
        for _ in range(8):
            each.append(message(ledger, None))
    for _ in range(5):
        slow.append(message(ledger, sender))
    assert sender.held == 3 * SIZE
    for each in others:
        each.clear()
    slow.popleft()
    assert sender.held == 0


def test_backlog_that_is_cleared_holds_nobody_back(ledger: Ledger) -> None:
    sender, waiting = Sender(), Backlog()
    for _ in range(20):
        waiting.append(message(ledger, sender))
    assert sender.held
    waiting.clear()
    assert (sender.held, ledger.total, waiting.size, len(waiting)) == (0, 0, 0, 0)


def test_file_of_sixteen_mebibytes_goes_at_everybodys_own_pace(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_LAG_BYTES", LAG)
    monkeypatch.setattr(backlog, "MAX_TOTAL_LAG_BYTES", 2 * LAG)
    sender, slow, piece = Sender(), Backlog(), bytes(1 << 20)
    for _ in range(15):
        slow.append(Message(piece, ledger, sender))
    assert not slow.holds_back
    for _ in range(2):
        slow.append(Message(piece, ledger, sender))
    assert slow.holds_back
