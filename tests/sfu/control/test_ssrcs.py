"""The SSRCs of a transport."""

import pytest

from sfu.control.ssrcs import Ssrcs


def test_neither_zero_nor_what_the_peer_has(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([2**32 - 5, 5])  # start and step
    monkeypatch.setattr("secrets.randbits", lambda _: next(drawn))
    ssrcs = Ssrcs()
    assert ssrcs.claim([5, 7]) == {5, 7}
    assert [ssrcs.take(), ssrcs.take()] == [10, 15]  # 0 and 5 were passed over
    assert ssrcs.taken == {5, 7, 10, 15}


def test_ours_do_not_come_back() -> None:
    ssrcs = Ssrcs()
    seen = set()
    for _ in range(10_000):
        ssrc = ssrcs.take()
        assert ssrc not in seen
        seen.add(ssrc)
        ssrcs.give_back([ssrc])
    assert not ssrcs.taken


def test_what_two_receivers_announce_stays_with_the_first() -> None:
    ssrcs = Ssrcs()
    assert ssrcs.claim({1, 2}) == {1, 2}
    assert ssrcs.claim({2, 3}) == {3}
    ssrcs.give_back({3})
    assert ssrcs.taken == {1, 2}


def test_steps_are_odd_so_that_all_come_before_the_first_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0, 6])  # an even step would come round after 2^31
    monkeypatch.setattr("secrets.randbits", lambda _: next(drawn))
    assert Ssrcs().take() == 7
