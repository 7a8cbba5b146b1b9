"""How many packets should have reached subscribers in a window, from what publishers sent and what viewers chose.

Every viewer should get each packet of a track with one layer. It should also get each packet of one layer of a
simulcast track, if the server kept it on that layer. If the layer changed, the packets of each stretch on one layer are
counted by the publisher's own packet numbers, from the first to the last that arrived; forwarded sequence numbers are
no help, because a server renumbers. A viewer that gets nothing of a track should have got its lowest layer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def offered(
    sends: Array, sources: Array, tracks: Sequence[Sequence[int]], audience: Sequence[int], steady: bool
) -> int:
    """Return how many packets should have arrived.

    Args:
        sends: the table that `Generator.sends` gives.
        sources: the table that `Generator.sources` gives.
        tracks: rows of `sends` by track, lowest layer first.
        audience: how many viewers should receive each track.
        steady: whether all viewers were there during the whole window. If not, everything is counted by gaps.
    """
    media = sources[(sources["repair"] == 0) & (sources["send"] >= 0)]
    total = 0
    for rows, viewers in zip(tracks, audience, strict=True):
        if steady and len(rows) == 1:
            total += int(sends["offered"][rows[0]]) * viewers
            continue
        received = media[np.isin(media["send"], rows)]
        if not steady:
            total += int(_by_gaps(received).sum())
            continue
        served = 0
        for endpoint in np.unique(received["endpoint"]):
            served += 1
            total += _by_viewer(sends, received[received["endpoint"] == endpoint], rows)
        total += max(viewers - served, 0) * int(sends["offered"][rows[0]])
    return total


def _by_gaps(sources: Array) -> Array:
    """Return how many packets each source should have brought, by the numbers of those that it brought."""
    gaps: Array = sources["expected"] + sources["run_highest"] - sources["run_first"] + 1
    return np.where(sources["runs"] == 0, 0, gaps)


def _by_viewer(sends: Array, sources: Array, rows: Sequence[int]) -> int:
    """Return how many packets of a track one viewer should have got. Layers may come as one SSRC or as several."""
    live = sources[sources["runs"] > 0]
    if len(live) == 0:
        return int(sends["offered"][rows[0]])
    if len(live) == 1 and live["runs"][0] == 1:
        return int(sends["offered"][live["send"][0]])
    return int(_by_gaps(live).sum())
