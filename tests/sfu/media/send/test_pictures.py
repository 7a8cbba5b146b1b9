"""sfu.media.send.pictures: VP8 ids against a slow twin in both widths, VP9 offsets, TL0PICIDX."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.send.pictures import (
    drop_picture,
    is_dropped,
    offset_picture,
    send_picture,
    send_tl0,
    synchronise_pictures,
)
from sfu.schema.packet_tables import packet_t
from sfu.schema.subscription_tables import subscription_t
from tests.reference.numbering import Pictures

STEPS = st.lists(st.tuples(st.integers(-12, 4) | st.integers(-300, 120), st.booleans()), max_size=200)


def packet(picture: int, wide: bool = True, tl0: int | None = None) -> Any:
    rows = np.zeros(1, packet_t)
    rows["picture_id"] = picture & (0x7FFF if wide else 0x7F)
    rows["picture_bytes"], rows["picture_at"] = 2 if wide else 1, 2
    if tl0 is not None:
        rows["tl0"], rows["tl0_at"] = tl0, 4
    return rows[0]


def subscription(last_picture: int = -1, last_tl0: int = -1) -> Any:
    rows = np.zeros(1, subscription_t)
    rows["last_picture"], rows["last_tl0"] = last_picture, last_tl0
    return rows[0]


@given(wide=st.booleans(), before_wrap=st.integers(0, 40), last=st.integers(-1, 0x7FFF), steps=STEPS)
def test_frames_get_the_ids_that_counting_gives(
    wide: bool, before_wrap: int, last: int, steps: list[tuple[int, bool]]
) -> None:
    mask = 0x7FFF if wide else 0x7F
    first = mask - before_wrap
    row = subscription(last)
    synchronise_pictures(row, packet(first, wide))
    twin = Pictures(first, first if last < 0 else last + 1)
    assert send_picture(row, packet(first, wide)) & mask == twin.place[first] & mask  # type: ignore[operator]
    at = first
    for step, keep in steps:
        at = max(first, twin.highest - (500 if wide else 60), min(at + step, twin.highest + (120 if wide else 50)))
        data = packet(at, wide)
        if keep and twin.place.get(at, 0) is not None:
            expected = twin.send(at)
            assert expected is not None
            assert send_picture(row, data) & mask == expected & mask
        else:
            twin.drop(at)
            drop_picture(row, data)
        assert is_dropped(row, data) == (twin.place[at] is None)


@pytest.mark.parametrize(("wide", "last"), [(True, 0x7FFE), (False, 0x7E)])
def test_ids_are_consecutive_over_the_wrap_when_every_other_frame_is_dropped(wide: bool, last: int) -> None:
    mask = 0x7FFF if wide else 0x7F
    row, got = subscription(), []
    synchronise_pictures(row, packet(last, wide))
    for number in range(last, last + 40):
        if (number - last) % 2:
            drop_picture(row, packet(number, wide))
        else:
            got.append(send_picture(row, packet(number, wide)) & mask)
    assert got == [(last + k) & mask for k in range(20)]


def test_a_switch_continues_picture_id_and_tl0() -> None:
    row = subscription(last_picture=0x7FFF, last_tl0=255)
    synchronise_pictures(row, packet(123, tl0=9))
    assert send_picture(row, packet(123)) == 0
    assert send_tl0(row, packet(123, tl0=9)) == 0
    assert send_tl0(row, packet(124, tl0=10)) == 1
    assert send_tl0(row, packet(123, tl0=9)) == 0
    assert row["last_tl0"] == 1


def test_vp9_pictures_keep_their_distances_after_a_switch() -> None:
    row = subscription(last_picture=500)
    synchronise_pictures(row, packet(0x7FFE))
    assert [offset_picture(row, packet(0x7FFE + k)) for k in (0, 1, 5, 3)] == [501, 502, 506, 504]
    assert row["last_picture"] == 506
