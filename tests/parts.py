"""Three parts of the tests, one after the other: what only computes, what drives real clients, and what measures.

What only computes runs in one process for each core. Real clients wait for most of the time, so two processes drive
them at once, each in a network of its own (`own_network`). Nothing may run beside what measures, fills a core, or fails
when the machine does something else for a tenth of a second.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import pytest

Part = Literal["parallel", "clients", "alone"]
PARTS: tuple[Part, ...] = get_args(Part)
SHARED: tuple[Part, ...] = ("parallel", "clients")
"""The parts that may run in several processes."""
OWN_NETWORK = "own_network"
"""The fixture that moves its whole process into another network namespace."""
LONGEST = (
    "tests/clients/test_faults.py",
    "tests/clients/test_matrix.py",
    "tests/clients/test_resources.py",
    "tests/clients/test_participants.py",
    "tests/clients/test_turn.py",
    "tests/clients/test_json_client.py",
    "tests/clients/test_whip.py",
    "tests/clients/test_demo_page.py",
    "tests/clients/test_tcp.py",
)
"""Files of clients that take longest. They come first, so that in the end no process waits long for the other."""


def part_of(item: pytest.Item) -> Part:
    """The part to which a test belongs, by its markers and fixtures."""
    if item.get_closest_marker("alone"):
        return "alone"
    if item.get_closest_marker("client") or OWN_NETWORK in getattr(item, "fixturenames", ()):
        return "clients"
    return "parallel"


def divided(items: Iterable[pytest.Item], part: Part) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests of a part, and all others; those in the files of `LONGEST` before the rest, else in their order."""
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        (chosen if part_of(item) == part else others).append(item)
    chosen.sort(key=_turn)
    return chosen, others


def _turn(item: pytest.Item) -> int:
    file = item.nodeid.partition("::")[0]
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
