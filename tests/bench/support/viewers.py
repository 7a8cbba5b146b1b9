"""What a viewer of bench/network says."""

from collections.abc import Callable
from typing import Any


def watched(
    seconds: int,
    *,
    heights: Callable[[float], int] = lambda _: 720,
    lost: Callable[[float], int] = lambda _: 0,
    again: Callable[[float], int] = lambda _: 0,
    concealed: Callable[[float], int] = lambda _: 0,
) -> list[dict[str, Any]]:
    """Lines of a viewer that shows 15 pictures a second, 80 ms old, from 50 packets of 1,000 bytes."""
    lines = []
    for number in range(10 * seconds):
        at = number / 10
        video = {"ssrc": 77, "bytes": int(50_000 * at), "packets": int(50 * at), "lost": lost(at), "again": again(at)}
        samples = {"concealed_samples": concealed(at), "concealment_events": concealed(at) // 4800}
        frames = [frame for frame in range(15 * seconds) if number - 1 < frame * 10 / 15 <= number]
        pictures = [[frame / 15, heights(frame / 15), 80] for frame in frames]
        lines.append(
            {
                "at": at,
                "video": {**video, "key_frames_decoded": 1, "pli_count": 0},
                "audio": {"ssrc": 78, "packets": int(50 * at), "total_samples_received": int(48_000 * at), **samples},
                "pictures": pictures,
            }
        )
    return lines
