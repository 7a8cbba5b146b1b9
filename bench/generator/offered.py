"""How many packets should have reached subscribers in a window, from what publishers sent and what viewers chose.

A track with one layer owes every viewer each packet. So does a simulcast track as long as a viewer stays on one layer,
whichever the server gave it. When the layer changed, what was owed is counted by gaps: the publisher's own packet
numbers between the first and the last packet of each stretch on one layer. (The forwarded sequence numbers are no
help: a server renumbers.) A viewer that gets nothing of a track at all is owed its lowest layer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def offered(
    sends: Array, sources: Array, tracks: Sequence[Sequence[int]], audience: Sequence[int], steady: bool
) -> int:
    """Packets owed.

    sends, sources: tables of `bench.generator.tables`, as `Generator.sends` and `.sources` give them. tracks: rows of
    `sends`, by track, lowest layer first; audience: how many should receive each track. steady: all of them were there
    from the begin of the window to its end; if not, everything is counted by gaps.
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
    """What each source is owed, by the gaps in what it brought."""
    gaps: Array = sources["expected"] + sources["run_highest"] - sources["run_first"] + 1
    return np.where(sources["runs"] == 0, 0, gaps)


def _by_viewer(sends: Array, sources: Array, rows: Sequence[int]) -> int:
    """What one viewer is owed of one track, whose layers may come as one SSRC or as several."""
    live = sources[sources["runs"] > 0]
    if len(live) == 0:
        return int(sends["offered"][rows[0]])
    if len(live) == 1 and live["runs"][0] == 1:
        return int(sends["offered"][live["send"][0]])
    return int(_by_gaps(live).sum())
