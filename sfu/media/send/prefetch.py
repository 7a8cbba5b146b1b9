"""Asks the processor for the rows of the next subscribers while the present one's packet is being protected.

With many subscribers their rows do not stay in the caches near the core, and egress would wait for a dozen of cache
lines one after the other. Nothing here changes anything, and an address that is wrong does no harm.
"""

import numpy as np
from numba import njit

from sfu.compiler.prefetch import prefetch
from sfu.schema.capacities import HISTORY
from sfu.schema.layout import CACHE_LINE
from sfu.schema.subscription_tables import SUBSCRIPTION_LINES, history_t, subscription_t
from sfu.schema.tables import state_t
from sfu.schema.transport_tables import media_t, path_t, transport_t

CIPHER_LINES = 18
"""OpenSSL's context, and what it allocates for the key right behind it: AES's round keys and GHASH's powers."""

_SUBSCRIPTIONS_AT, _SUBSCRIPTION_BYTES = state_t.fields["subscriptions"][1], subscription_t.itemsize
_TRANSPORTS_AT, _TRANSPORT_BYTES = state_t.fields["transports"][1], transport_t.itemsize
_PATHS_AT, _PATH_BYTES = state_t.fields["paths"][1], path_t.itemsize
_MEDIA_AT, _MEDIA_BYTES = state_t.fields["media"][1], media_t.itemsize
_HISTORY_AT, _HISTORY_BYTES = state_t.fields["history"][1], history_t.itemsize


@njit(cache=True)
def look_ahead(state, row):
    """Fetch what the three subscriptions after `row` need, one step each: a step reads what the last one fetched."""
    following = np.int64(state.subscriptions[row].next_of_track)
    if following < 0:
        return
    _fetch_way(state, following)
    following = np.int64(state.subscriptions[following].next_of_track)
    if following < 0:
        return
    _fetch_destination(state, following)
    following = np.int64(state.subscriptions[following].next_of_track)
    if following >= 0:
        at = np.int64(state.thread[0].state_at) + _SUBSCRIPTIONS_AT + following * _SUBSCRIPTION_BYTES
        for line in range(SUBSCRIPTION_LINES):
            prefetch(np.uint64(at + line * CACHE_LINE))


@njit(cache=True)
def _fetch_destination(state, row):
    """The second step: the transport of a subscription, and where its next packet will be remembered."""
    subscription = state.subscriptions[row]
    at = np.int64(state.thread[0].state_at)
    prefetch(np.uint64(at + _TRANSPORTS_AT + np.int64(subscription.transport) * _TRANSPORT_BYTES))
    following = (subscription.out_highest + 1) & (HISTORY - 1)
    prefetch(np.uint64(at + _HISTORY_AT + (np.int64(subscription.history) * HISTORY + following) * _HISTORY_BYTES))


@njit(cache=True)
def _fetch_way(state, row):
    """The last step: the numbers that were negotiated, the address, and the keys."""
    transport = state.transports[state.subscriptions[row].transport]
    at = np.int64(state.thread[0].state_at)
    prefetch(np.uint64(at + _MEDIA_AT + np.int64(transport.media) * _MEDIA_BYTES))
    prefetch(np.uint64(at + _PATHS_AT + np.int64(transport.path) * _PATH_BYTES))
    cipher = transport.cipher
    if cipher == 0:
        prefetch(transport.srtp_out)
        return
    for line in range(CIPHER_LINES):
        prefetch(cipher + np.uint64(line * CACHE_LINE))
