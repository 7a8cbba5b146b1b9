"""A moving picture that costs its encoder what video of a camera costs, and says when it was taken.

The time stands in a row of black and white blocks at the top, large enough to be read at a quarter of the size. So a
viewer knows how old what it shows is. Pictures are I420: the luma plane, then both chroma planes at half the size.
"""

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1280, 720
TIME_BITS, CHECK_BITS = 24, 4
BLOCK = WIDTH // (TIME_BITS + CHECK_BITS)
"""The width and height of a block in a picture of full size, in pixels."""
WRAP_MS = 1 << TIME_BITS
_BLACK, _WHITE, _MIDDLE = 16, 235, 128
_ROAM = 192
"""The picture moves by up to so many pixels over a larger one."""
_GRAIN = 8
_SEED = 7

Plane = NDArray[np.uint8]


def _checked(milliseconds: int) -> int:
    """Return the time with its check sum behind it."""
    time, check = milliseconds % WRAP_MS, 0
    for place in range(0, TIME_BITS, CHECK_BITS):
        check ^= time >> place
    return time << CHECK_BITS | (check ^ 0b1010) & 0b1111


def write_time(luma: Plane, milliseconds: int) -> None:
    """Write a time into a luma plane of full size."""
    code = _checked(milliseconds)
    for place in range(TIME_BITS + CHECK_BITS):
        bit = code >> (TIME_BITS + CHECK_BITS - 1 - place) & 1
        luma[:BLOCK, place * BLOCK : (place + 1) * BLOCK] = _WHITE if bit else _BLACK


def read_time(luma: Plane) -> int | None:
    """Return the time in a luma plane of any size, modulo WRAP_MS. None: it cannot be read."""
    scale = luma.shape[1] / WIDTH
    middles = ((np.arange(TIME_BITS + CHECK_BITS) + 0.5) * BLOCK * scale).astype(np.intp)
    row = int(BLOCK * scale / 2)
    reach = max(1, int(BLOCK * scale / 4))
    code = 0
    for middle in middles:
        block = luma[row - reach : row + reach, middle - reach : middle + reach]
        code = code << 1 | bool(block.mean() > _MIDDLE)
    time = code >> CHECK_BITS
    return time if _checked(time) == code else None


class Camera:
    """A camera that roams over a larger picture, with grain."""

    def __init__(self) -> None:
        """Draw the scene. Every camera takes the same pictures."""
        generator = np.random.default_rng(_SEED)
        large = np.zeros((HEIGHT + _ROAM, WIDTH + _ROAM), np.float32)
        for size, weight in ((160, 40), (32, 30), (8, 14)):
            coarse = generator.normal(0, weight, (large.shape[0] // size + 2, large.shape[1] // size + 2))
            fine = coarse.repeat(size, 0).repeat(size, 1)
            large += fine[: large.shape[0], : large.shape[1]].astype(np.float32)
        self._scene = np.clip(large + _MIDDLE, _BLACK, _WHITE).astype(np.uint8)
        grain = generator.normal(0, _GRAIN, (4, HEIGHT, WIDTH)) + _GRAIN
        self._grains = np.clip(grain, 0, 2 * _GRAIN).astype(np.uint8)
        self._chroma = np.full(WIDTH * HEIGHT // 2, _MIDDLE, np.uint8)
        self._number = 0

    def picture(self, milliseconds: int) -> bytes:
        """Take the next picture at this time. Return it as WIDTH x HEIGHT pixels in I420."""
        self._number += 1
        turn = self._number / 40
        left, top = int(_ROAM * (1 + np.sin(turn)) / 2), int(_ROAM * (1 + np.cos(turn * 1.3)) / 2)
        luma = self._scene[top : top + HEIGHT, left : left + WIDTH] + self._grains[self._number % len(self._grains)]
        write_time(luma, milliseconds)
        whole: bytes = luma.tobytes() + self._chroma.tobytes()
        return whole
