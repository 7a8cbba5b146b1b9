"""Sets of recent numbers, one bit each: the newest numbers in a word of the row's hot part, older ones in its `past`.

A number's block is number >> 6, its bit number & 63. The word holds the block of the highest number, `past` the
PAST_WORDS blocks before it by block & (PAST_WORDS - 1): in-order packets touch `past` once in 64 numbers, late packets
only when they belong to an earlier block. A set reaches WINDOW numbers back, as far as a packet can be asked for.
"""

import numpy as np
from numba import njit

from sfu.media.wire.bits import count_bits
from sfu.schema.capacities import PACKETS, PAST_WORDS

WINDOW = PACKETS
"""Numbers up to and including the highest that a set knows."""
BLOCK_BITS = 6

_ONE = np.uint64(1)
_LAST_WORD = PAST_WORDS - 1


@njit(cache=True)
def bit_of(number):
    """The bit of a number in its block's word."""
    return _ONE << np.uint64(number & 63)


@njit(cache=True)
def is_other_block(number, highest):
    """Whether two numbers lie in different blocks."""
    return (number ^ highest) >> BLOCK_BITS != 0


@njit(cache=True)
def leave_block(past, word, highest, number):
    """Put the word of `highest` into `past`, because `number`, above it, begins another block, whose word is 0.

    Blocks that were jumped over are empty.
    """
    block, following = highest >> BLOCK_BITS, number >> BLOCK_BITS
    past[block & _LAST_WORD] = word
    for empty in range(max(block + 1, following - PAST_WORDS), following):
        past[empty & _LAST_WORD] = 0


@njit(cache=True)
def count_after(past, word, highest, number):
    """How many numbers of the set lie above `number`, which is at most WINDOW - 1 below `highest`."""
    if not is_other_block(number, highest):
        return count_bits((np.uint64(word) >> np.uint64(number & 63)) >> _ONE)
    block = number >> BLOCK_BITS
    count = count_bits(word) + count_bits((past[block & _LAST_WORD] >> np.uint64(number & 63)) >> _ONE)
    for later in range(block + 1, highest >> BLOCK_BITS):
        count += count_bits(past[later & _LAST_WORD])
    return count


@njit(cache=True)
def word_of(past, word, highest, number):
    """The word that holds `number`, which is at most WINDOW - 1 below `highest`."""
    if is_other_block(number, highest):
        return past[(number >> BLOCK_BITS) & _LAST_WORD]
    return np.uint64(word)


@njit(cache=True)
def add_to_past(past, number):
    """Put a number of an earlier block into the set."""
    past[(number >> BLOCK_BITS) & _LAST_WORD] |= bit_of(number)
