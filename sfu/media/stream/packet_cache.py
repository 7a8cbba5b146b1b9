"""Packets of a stream that are kept so that they can be sent again: which of them still are."""

from numba import njit


@njit(cache=True)
def is_stored(stream, packet, sequence):
    """Whether `packet` is still the one with this extended sequence number, and its bytes are in the packet cache."""
    oldest = max(stream.cache_written - stream.cache_bytes, stream.cache_oldest)
    return packet.sequence == sequence and packet.start >= oldest
