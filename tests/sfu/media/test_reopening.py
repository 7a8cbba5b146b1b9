"""Rows are used again: one that was used by another begins like one that never was."""

from typing import Any

import numpy as np
import pytest

from sfu.media.subscriptions import close_subscription, open_subscription
from sfu.media.tracks import close_track, open_track
from sfu.schema.capacities import TRANSPORTS
from sfu.schema.codes import Command
from sfu.schema.columns import RowType
from sfu.schema.subscription_tables import SUBSCRIPTION
from sfu.schema.track_tables import STREAM, TRACK
from sfu.schema.transport_tables import TRANSPORT
from tests.sfu.media.test_loop import NOW, Node
from tests.sfu.support.subscribers import Room


def soil(row: Any, row_type: RowType) -> None:
    """Write into every column that is to be reset, but for `state`, which says that the row is free."""
    for column in row_type.columns:
        if column.is_reset and column.name != "state":
            row[column.name] = np.full_like(row[column.name], 85)


def columns_of(row: Any, row_type: RowType) -> dict[str, bytes]:
    return {name: row[name].tobytes() for name in row_type.dtype.names}


def test_a_track_and_its_streams() -> None:
    room = Room(layers=2)
    rows = [(room.track, TRACK), (room.stream(0), STREAM), (room.stream(1), STREAM)]
    room.stream(0)["clock_rate"] = room.stream(1)["clock_rate"] = 0  # what Room writes after it has opened the track
    first = [columns_of(*each) for each in rows]
    close_track(room.record, 0)
    for each in rows:
        soil(*each)
    open_track(room.record, 0)
    assert [columns_of(*each) for each in rows] == first


def test_a_subscription() -> None:
    room = Room()
    room.add_viewer()
    row = room.subscription()
    row["mid_acknowledged"] = row["rtx_mid_acknowledged"] = 0  # what Room writes after it has opened the subscription
    first = columns_of(row, SUBSCRIPTION)
    close_subscription(room.record, 0)
    soil(row, SUBSCRIPTION)
    open_subscription(room.record, 0, room.now)
    assert columns_of(row, SUBSCRIPTION) == first


def test_a_transport() -> None:
    node = Node()
    try:
        node.open()
        node.turn()
        first = columns_of(node.transport, TRANSPORT)
        node.command(Command.CLOSE_TRANSPORT)
        node.turn()
        soil(node.transport, TRANSPORT)
        node.open()
        node.turn()
        assert columns_of(node.transport, TRANSPORT) == first
    finally:
        node.close()


@pytest.mark.parametrize("row", [0, TRANSPORTS - 1])
def test_the_log_of_arrivals_is_forgotten_with_its_transport(row: int) -> None:
    node = Node()
    try:
        log = node.memory.table("arrivals")[row]
        for name in log.dtype.names:
            log[name] = np.full_like(log[name], 85)
        node.open(row)
        node.memory.table("transports")[row]["generation"] = node.transport["generation"]
        node.turn(NOW)
        assert {name: int(np.max(log[name])) for name in log.dtype.names} == dict.fromkeys(log.dtype.names, 0)
    finally:
        node.close()
