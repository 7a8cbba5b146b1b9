"""Asks the processor for the rows of the next subscribers while the present one's packet is being protected.

With many subscribers their rows do not stay in the caches near the core, and egress would wait for a dozen of cache
lines one after the other. Nothing here reads or changes anything.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sfu.tables import HISTORY, history_t, state_t, subscription_t, transport_t

CACHE_LINE = 64
_READ, _KEEP, _DATA = 0, 3, 1
"""Arguments of llvm.prefetch: for reading, into all levels, data cache."""

_SUBSCRIPTIONS_AT, _SUBSCRIPTION_BYTES = state_t.fields["subscriptions"][1], subscription_t.itemsize
_TRANSPORTS_AT, _TRANSPORT_BYTES = state_t.fields["transports"][1], transport_t.itemsize
_HISTORY_AT, _HISTORY_BYTES = state_t.fields["history"][1], history_t.itemsize


@intrinsic
def _prefetch(typing, address):
    def emit(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, number(_READ), number(_KEEP), number(_DATA)])
        return context.get_dummy_value()

    return types.void(types.uint64), emit


@njit(cache=True)
def _prefetch_range(at, size):
    for offset in range(0, size, CACHE_LINE):
        _prefetch(np.uint64(at + offset))


@njit(cache=True)
def prefetch_subscription(state, row):
    """Fetch a subscription's row."""
    at = np.int64(state.thread[0].state_at)
    _prefetch_range(at + _SUBSCRIPTIONS_AT + row * _SUBSCRIPTION_BYTES, _SUBSCRIPTION_BYTES)


@njit(cache=True)
def prefetch_destination(state, row):
    """Fetch what sending to a subscription touches besides its row, which should have arrived."""
    subscription = state.subscriptions[row]
    at = np.int64(state.thread[0].state_at)
    _prefetch_range(at + _TRANSPORTS_AT + np.int64(subscription.transport) * _TRANSPORT_BYTES, _TRANSPORT_BYTES)
    following = (subscription.out_highest + 1) & (HISTORY - 1) if subscription.rtx_ssrc != 0 else 0
    _prefetch(np.uint64(at + _HISTORY_AT + (row * HISTORY + following) * _HISTORY_BYTES))
