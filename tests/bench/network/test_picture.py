"""The time that stands in a picture."""

import numpy as np
import pytest

from bench.network.picture import HEIGHT, WIDTH, WRAP_MS, Camera, read_time, write_time


def luma(picture: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.frombuffer(picture, np.uint8, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("time", [0, 1, 123_456_789, WRAP_MS - 1])
def test_the_time_is_read_in_every_layer(scale: int, time: int) -> None:
    picture = luma(Camera().picture(time))
    small = picture.reshape(HEIGHT // scale, scale, WIDTH // scale, scale).mean((1, 3)).astype(np.uint8)
    noise = np.random.default_rng(1).normal(0, 20, small.shape)
    assert read_time(np.clip(small + noise, 0, 255).astype(np.uint8)) == time % WRAP_MS


def test_a_spoiled_time_is_none() -> None:
    picture = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert read_time(picture) is None
    write_time(picture, 5000)
    assert read_time(picture) == 5000
    picture[:, 600:650] = 255 - picture[:, 600:650]
    assert read_time(picture) is None


def test_pictures_move_and_have_the_size_of_i420() -> None:
    camera = Camera()
    first, second = camera.picture(0), camera.picture(0)
    assert first != second
    assert len(first) == WIDTH * HEIGHT * 3 // 2
