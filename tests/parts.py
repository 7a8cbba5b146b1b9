"""Two parts of the tests: what only computes may run in several processes, what follows a real clock runs alone."""

from collections.abc import Iterable
from typing import Literal, get_args

import pytest

Part = Literal["parallel", "alone"]
PARTS: tuple[Part, ...] = get_args(Part)
ALONE_MARKERS = ("alone", "client")
OWN_NETWORK = "own_network"
"""The fixture that moves its whole process into another network namespace."""


def part_of(item: pytest.Item) -> Part:
    """The part to which a test belongs: "alone" if a marker or a fixture says that nothing may run beside it."""
    marked = any(item.get_closest_marker(name) for name in ALONE_MARKERS)
    return "alone" if marked or OWN_NETWORK in getattr(item, "fixturenames", ()) else "parallel"


def divided(items: Iterable[pytest.Item], part: Part) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests of a part, and all others, in their order."""
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        (chosen if part_of(item) == part else others).append(item)
    return chosen, others
