"""What aiortc's association does about chunks that may be lost, at a cost that does not grow with their number."""

import asyncio
from typing import Any

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import DataChunk, RTCSctpTransport

from sfu.control.data.reassembly import WHOLE

TIMER_SLACK_S = 0.002
"""A timer that fires this much early is due: loops count in milliseconds."""


class Retransmission(RTCSctpTransport):
    """aiortc's association with another T3 (RFC 9260 section 6.3), and another way to give up messages."""

    def __init__(self, transport: RTCDtlsTransport, port: int) -> None:
        super().__init__(transport, port=port)
        self._t3_kept: asyncio.TimerHandle | None = None
        self._t3_kept_until = self._t3_due = 0.0
        self._resending = False
        """T3 has expired, and chunks that were under way then may have to be sent again. The owner ends this when all
        that is under way is acknowledged."""

    def _maybe_abandon(self, chunk: DataChunk) -> bool:
        """Whether a chunk's message is given up. aiortc searches for the message's other chunks among all that is under
        way; most messages have none."""
        sent: Any = chunk  # aiortc's own attributes, which its types do not know
        if chunk.flags & WHOLE != WHOLE or sent._expiry is not None or sent._max_retransmits is None:
            return super()._maybe_abandon(chunk)
        if sent._sent_count > sent._max_retransmits:
            sent._abandoned = True
            sent._retransmit = False
            self._flight_size_decrease(chunk)
        return bool(sent._abandoned)

    # T3 starts with almost every message and stops with its SACK, so the loop's timer is left to run instead: one that
    # fires too early waits for the rest. aiortc takes `_t3_handle` for the answer to whether T3 runs.
    def _t3_start(self) -> None:
        self._t3_due = asyncio.get_running_loop().time() + self._rto
        if self._t3_kept is None or self._t3_kept_until > self._t3_due:
            self._t3_drop()
            self._t3_arm(self._rto)
        self._t3_handle = self._t3_kept

    def _t3_restart(self) -> None:
        self._t3_start()

    def _t3_cancel(self) -> None:
        self._t3_handle = None
        if self._association_state is self.State.CLOSED:
            self._t3_drop()

    def _t3_arm(self, seconds: float) -> None:
        self._t3_kept = asyncio.get_running_loop().call_later(seconds, self._t3_fired)
        self._t3_kept_until = self._t3_due

    def _t3_drop(self) -> None:
        if self._t3_kept is not None:
            self._t3_kept.cancel()
            self._t3_kept = None

    def _t3_fired(self) -> None:
        self._t3_kept = None
        if self._t3_handle is None:
            return
        rest = self._t3_due - asyncio.get_running_loop().time()
        if rest > TIMER_SLACK_S:
            self._t3_arm(rest)
            self._t3_handle = self._t3_kept
        else:
            self._t3_expired()

    def _t3_expired(self) -> None:
        self._resending = True
        super()._t3_expired()
