"""What one pass of the pacer may cost, whatever its peers do, and when a transport's turn in it ends."""

from numba import njit

PACKET_WORK, TRANSPORT_WORK = 16, 4
"""What a packet that leaves and a transport that is looked at cost, in log entries that are passed over."""
MAX_PASS_WORK = 1 << 14
"""What one pass may cost: a thousand packets. The others are the first ones of the next pass."""


@njit(cache=True)
def is_used_up(state, row, end):
    """Whether transport `row` is sent nothing more in this pass: for its budget, because its log.count is `end`, or
    because the pass has cost enough."""
    log = state.send_logs[row]
    return log.bytes >= log.pace_bytes or log.count >= end or state.thread[0].pace_work > MAX_PASS_WORK
