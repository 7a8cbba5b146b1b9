"""What publishers say in their packets that layers will take, from the packet to the costs."""

from sfu.media.allocation.costs import MAX_TARGET_KBPS, target_cost
from sfu.media.receive.targets import note_targets
from sfu.media.sharing import track_costs
from sfu.parameters import Extension
from tests.sfu.support.subscribers import Room

ALLOCATION = bytes.fromhex("61 54 5a9601 ac02 f403 fa0a a40d")
"""On stream 1 of 3, each with one spatial and two temporal layers: 90, 150; 300, 500; 1402, 1700 kbit/s."""


class Publisher(Room):
    """A camera in three streams, of which nothing was measured."""

    def __init__(self) -> None:
        super().__init__(layers=3)
        self.track["live"] = 0b111

    def tell(self, data: bytes, layer: int = 1) -> list[list[int]]:
        """Say it in a packet of a layer; what is kept for each layer."""
        self.memory.table("rx")[0, 20 : 20 + len(data)] = list(data)
        header = self.memory.table("header")[0]
        header["at"][Extension.VIDEO_LAYERS], header["bytes"][Extension.VIDEO_LAYERS] = 18, len(data)
        note_targets(self.record, int(self.track["streams"][layer]), 0, 2)
        return [self.stream(each)["target_kbps"].tolist()[:3] for each in range(3)]

    def costs(self) -> list[list[int]]:
        demand = self.memory.table("demands")[0]
        track_costs(self.record, self.track, demand, 44)
        return [[int(bps) for bps in row[:2]] for row in demand["cost"]]


def test_each_layer_costs_what_its_publisher_means_to_send() -> None:
    publisher = Publisher()
    assert publisher.tell(ALLOCATION) == [[90, 150, 0], [300, 500, 0], [1402, 1700, 0]]
    assert publisher.costs() == [
        [target_cost(low), target_cost(high)] for low, high in ((90, 150), (300, 500), (1402, 1700))
    ]


def test_before_that_it_costs_what_was_announced() -> None:
    publisher = Publisher()
    for layer, bps in enumerate((100_000, 400_000, 0)):
        publisher.stream(layer)["announced_bps"] = bps
    assert publisher.costs() == [[target_cost(100), 0], [target_cost(400), 0], [3 * target_cost(400), 0]]


def test_streams_in_another_order_and_malformed_ones_change_nothing() -> None:
    publisher = Publisher()
    before = publisher.tell(ALLOCATION)
    assert publisher.tell(bytes.fromhex("61 54 0101 0202 0303"), layer=0) == before
    assert publisher.tell(ALLOCATION[:-1]) == before
    assert publisher.tell(b"\x00") == before


def test_more_than_can_be_counts_as_the_most() -> None:
    publisher = Publisher()
    told = publisher.tell(bytes.fromhex("61 00 ffffffff0f 01 02"))
    assert told == [[MAX_TARGET_KBPS, 0, 0], [1, 0, 0], [2, 0, 0]]
