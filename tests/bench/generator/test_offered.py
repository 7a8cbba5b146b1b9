"""How many packets were owed: by schedule where that is certain, by gaps where layers changed, to the unserved too."""

from typing import Any

import numpy as np

from bench.generator.offered import offered
from bench.generator.tables import send_t, source_t

AUDIO, LOW, HIGH = 0, 1, 2
SENT = {AUDIO: 50, LOW: 20, HIGH: 200}
"""Packets in the window, by row."""


def sends() -> Any:
    table = np.zeros(3, send_t)
    for row, count in SENT.items():
        table[row]["offered"] = count
    return table


def sources(*rows: dict[str, int]) -> Any:
    table = np.zeros(len(rows), source_t)
    for source, values in zip(table, rows, strict=True):
        for name, value in values.items():
            source[name] = value
    return table


def stayed(endpoint: int, send: int, first: int = 0, highest: int = 5) -> dict[str, int]:
    return {"endpoint": endpoint, "send": send, "runs": 1, "run_first": first, "run_highest": highest}


def test_one_layer_owes_everybody_everything_even_those_who_got_nothing() -> None:
    assert offered(sends(), sources(), [[AUDIO]], [7], steady=True) == 7 * SENT[AUDIO]


def test_a_viewer_that_stays_on_a_layer_is_owed_all_of_it() -> None:
    received = sources(stayed(1, LOW), stayed(2, HIGH))
    assert offered(sends(), received, [[LOW, HIGH]], [2], steady=True) == SENT[LOW] + SENT[HIGH]


def test_changed_layers_are_counted_by_gaps() -> None:
    changed = {"endpoint": 1, "send": HIGH, "runs": 3, "expected": 11, "run_first": 100, "run_highest": 129}
    assert offered(sends(), sources(changed), [[LOW, HIGH]], [1], steady=True) == 11 + 30


def test_layers_on_ssrcs_of_their_own_are_one_subscription() -> None:
    left = {"endpoint": 1, "send": HIGH, "runs": 0}
    assert offered(sends(), sources(left, stayed(1, LOW)), [[LOW, HIGH]], [1], steady=True) == SENT[LOW]


def test_who_gets_nothing_of_a_simulcast_track_is_owed_the_lowest_layer() -> None:
    silent = {"endpoint": 1, "send": HIGH, "runs": 0}
    assert offered(sends(), sources(silent), [[LOW, HIGH]], [3], steady=True) == 3 * SENT[LOW]


def test_repair_streams_owe_nothing() -> None:
    received = sources(stayed(1, LOW), stayed(1, LOW) | {"repair": 1})
    assert offered(sends(), received, [[LOW, HIGH]], [1], steady=True) == SENT[LOW]


def test_who_came_late_is_owed_what_came_after_its_first_packet() -> None:
    received = sources(stayed(1, AUDIO, 30, 49), stayed(2, AUDIO, 10, 49))
    assert offered(sends(), received, [[AUDIO]], [2], steady=False) == 20 + 40
