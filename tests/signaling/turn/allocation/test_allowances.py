"""signaling/turn/allocation/allowances.py: requests in a second, by network, in bounded memory."""

import pytest

from signaling.allowance import Allowance
from signaling.turn.allocation import allowances
from signaling.turn.allocation.allowances import NetworkAllowances


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    allowance = Allowance(2.0, 3.0, 100.0)
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.take(100.5) for _ in range(2)] == [True, False]
    assert [allowance.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_line_with_ipv6_is_one_network() -> None:
    networks = NetworkAllowances(0.0, 1.0)
    first, neighbour, other = (bytes([0x20, 1, 0xD, 0xB8, 0, 0, 0, line]) + bytes([end] * 8) for line, end in LINES)
    assert [networks.take(each, 0.0) for each in (first, neighbour, other)] == [True, False, True]
    assert [networks.take(bytes(ip), 0.0) for ip in ((192, 0, 2, 1), (192, 0, 2, 2))] == [True, True]


LINES = ((1, 1), (1, 2), (2, 1))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "MAX_NETWORKS", 3)
    networks = NetworkAllowances(0.0, 1.0)
    for number in range(10):
        assert networks.take(bytes([10, 0, 0, number]), 0.0)
        assert networks.take(bytes([10, 0, 1, 0]), 0.0) is (number == 0)  # who asks on is not forgotten
    assert len(networks) == 3
