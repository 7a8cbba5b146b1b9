"""What viewers see and hear beside long reliable messages, in simulated time."""

import heapq
from itertools import pairwise

import pytest

from sfu.control.data.pace import Pace, share_of
from tests.sfu.support.simulated_call import NATIVE, START, SimulatedCall, Viewer, simulated_call
from tests.sfu.support.simulated_link import MS, SECOND, Link

pytestmark = pytest.mark.timeout(600)  # kernels that are not in the cache are compiled first

BEGINS_S = 10
PACKET = 1_200
WIRE_BYTES = 1_280
"""A packet with the headers of SCTP, DTLS, UDP and IP."""
FIRST_WINDOW = 3 * PACKET
LEAST_WINDOW = 4 * PACKET


class Transfer:
    """A long message to a viewer, in data that fill their path until it loses packets, as SCTP does: with slow start,
    congestion avoidance, and a window that each round trip with a loss halves (RFC 9260 section 7.2)."""

    def __init__(self, call: SimulatedCall, viewer: Viewer, size: int) -> None:
        """size: bytes that are left to be sent."""
        self.call, self.viewer, self.left = call, viewer, size
        self.ended: int | None = None
        """When all had arrived."""
        row = call.memory.table("transports")[viewer.row]
        self._pace = Pace(lambda: share_of(row))
        self._window, self._threshold, self._flight = float(FIRST_WINDOW), 1e9, 0
        self._news: list[tuple[int, bool]] = []
        """When it is known of each packet whether it arrived."""
        self._halved_ns = 0

    def step(self) -> None:
        """Take what is known now, and send what may be."""
        now = self.call.now
        while self._news and self._news[0][0] <= now:
            _, arrived = heapq.heappop(self._news)
            self._flight -= PACKET
            if arrived:
                self._window += PACKET if self._window < self._threshold else PACKET * PACKET / self._window
            else:
                self.left += PACKET
                self._halve(now)
        if self.left <= 0 and self._flight == 0 and self.ended is None:
            self.ended = now
        while self.left > 0 and self._flight < self._window:
            credit = self._pace.credit(now / SECOND)
            if credit is not None and credit <= 0:
                return
            self._send(now)

    def _send(self, now: int) -> None:
        link = self.viewer.down
        self._pace.spend(PACKET)
        self.left -= PACKET
        self._flight += PACKET
        at = link.carry(now, WIRE_BYTES)
        known = at if at is not None else now + link.waits_ns(now) + link.delay_ns
        heapq.heappush(self._news, (known + 20 * MS, at is not None))

    def _halve(self, now: int) -> None:
        if now - self._halved_ns > 2 * self.viewer.down.delay_ns + self.viewer.down.waits_ns(now):
            self._halved_ns = now
            self._threshold = self._window = max(self._window / 2, LEAST_WINDOW)


@pytest.mark.parametrize(("capacity", "size", "within_s"), [(1_500_000, 1_000_000, 20), (750_000, 500_000, 25)])
def test_pictures_step_down_beside_a_long_message_and_do_not_stand(capacity: int, size: int, within_s: int) -> None:
    with simulated_call() as call:
        call.publish(140_000, 440_000, 1_680_000, encoders=NATIVE)
        viewer = call.view(Link(START, ((0.0, capacity),), delay_ns=20 * MS))
        call.run(BEGINS_S)
        before = max(each.layer for each in viewer.seconds[-3:])
        transfer = Transfer(call, viewer, size)
        call.run(within_s, transfer.step)
        assert transfer.ended is not None
        beside = viewer.seconds[BEGINS_S : (transfer.ended - START) // SECOND]
        (screen,) = viewer.screens.values()
        shown = [at for at in screen.shown if at >= START + BEGINS_S * SECOND]
        assert max(b - a for a, b in pairwise(shown)) <= 700 * MS
        assert len(shown) >= 0.5 * within_s * SECOND / NATIVE.frame_ns
        assert sum(each.audio for each in beside) >= 0.99 * 50 * len(beside)
        call.run(30)
        assert viewer.seconds[-2].layer >= before
