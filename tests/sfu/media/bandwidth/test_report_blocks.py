"""Receiver reports of all subscriptions of a peer without transport-cc, added up."""

from typing import Any

import pytest

from sfu.media.bandwidth.report_blocks import NEEDED_PACKETS, take_receiver_estimate, take_report_block
from sfu.media.subscriptions import close_subscription, open_subscription
from sfu.schema.capacities import SEQUENCE_START
from sfu.schema.estimate_tables import MAX_BPS
from tests.sfu.support.subscribers import MS, SECOND, START_OF_KEY, Room


class Reporting:
    """A viewer that is sent 100 packets/s of 1,000 bytes."""

    def __init__(self) -> None:
        self.room = Room()
        self.viewer = self.room.add_viewer()
        self.room.media()["numbered"] = 0
        self.number, self.lost = 0, 0
        self.send(1)

    def send(self, count: int, skipped: int = 0, size: int = 1_000) -> None:
        """Send so many packets of `size` bytes, after so many numbers that the publisher lost."""
        self.number += skipped
        for _ in range(count):
            flags = START_OF_KEY if self.number == 0 else 0
            self.room.store(self.number, payload=bytes(size), flags=flags)
            self.room.forward()
            self.number += 1
            self.room.pass_time(10 * MS)

    def report(self, lost: int = 0, behind: int = 0) -> None:
        """Report that so many more are missing, of all but the newest `behind` numbers."""
        self.lost += lost
        highest = int(self.room.subscription()["out_highest"]) - behind
        take_report_block(self.room.record, 0, highest & 0xFFFF, self.lost, self.room.now)

    def open_another(self) -> Any:
        """Open a second subscription of the viewer; returns its row."""
        self.room.add_viewer()
        close_subscription(self.room.record, 1)
        row = self.room.subscription(1)
        row["transport"] = self.viewer.row
        open_subscription(self.room.record, 1, self.room.now)
        return row

    def fill(self, number: int) -> None:
        """Send a packet that the publisher sent late."""
        self.room.store(number, payload=bytes(1_000), flags=0)
        self.room.forward()

    @property
    def heard(self) -> tuple[int, int]:
        row = self.room.transport()
        return int(row["interval_packets"]), int(row["interval_lost"])

    @property
    def limit(self) -> int:
        return int(self.room.transport()["estimate_bps"])


@pytest.fixture
def reporting() -> Reporting:
    return Reporting()


def test_what_was_sent_and_lost_is_added_up(reporting: Reporting) -> None:
    reporting.send(9)
    reporting.report(lost=2)
    reporting.send(5)
    reporting.report(lost=1)
    assert reporting.heard == (15, 3)


def test_numbers_that_no_packet_had_were_not_lost(reporting: Reporting) -> None:
    reporting.send(9)
    reporting.report()
    reporting.send(5, skipped=7)
    reporting.report(lost=7)
    assert reporting.heard == (15, 0)
    reporting.send(5, skipped=7)
    reporting.report(lost=9)
    assert reporting.heard == (20, 2)


def test_such_numbers_are_known_here_before_they_are_reported_there(reporting: Reporting) -> None:
    reporting.send(9)
    reporting.send(2, skipped=7)
    reporting.report(behind=9)  # they are on their way
    reporting.send(2)
    reporting.report(lost=7)
    assert reporting.heard[1] == 0
    reporting.send(4)
    reporting.report(lost=3)
    assert reporting.heard[1] == 3


def test_a_packet_that_came_late_is_no_hole(reporting: Reporting) -> None:
    reporting.send(3, skipped=1)
    reporting.fill(reporting.number - 4)
    reporting.send(3)
    reporting.report()
    reporting.send(3)
    reporting.report(lost=1)
    assert reporting.heard[1] == 1


def test_a_packet_that_came_late_is_not_lost_while_it_is_on_its_way(reporting: Reporting) -> None:
    reporting.send(9)
    reporting.report()
    reporting.send(30, skipped=40)
    for number in range(reporting.number - 70, reporting.number - 30):
        reporting.fill(number)
    reporting.report(lost=40)
    assert reporting.heard[1] == 0
    reporting.send(9)
    reporting.report(lost=-40)
    assert reporting.heard[1] == 0
    reporting.send(9)
    reporting.report(lost=7)
    assert reporting.heard[1] == 7
    assert reporting.room.subscription()["own_lost"] == 7


@pytest.mark.parametrize("skips", [3, 8])
def test_many_numbers_that_no_packet_had_were_not_lost(reporting: Reporting, skips: int) -> None:
    """Several gaps that the report has not reached, each as large as one may be."""
    reporting.send(9)
    reporting.report()
    for _ in range(skips):
        reporting.send(1, skipped=400)
    reporting.report(behind=401 * skips)
    reporting.send(9)
    reporting.report(lost=400 * skips)
    assert reporting.heard[1] == 0


def test_a_receiver_that_counts_repeats_as_received_gains_nothing(reporting: Reporting) -> None:
    reporting.send(9)
    reporting.report(lost=5)
    reporting.send(9)
    reporting.report(lost=-5)
    assert reporting.heard == (19, 5)


@pytest.mark.parametrize("ahead", [1, 100, 0x7000])
def test_numbers_that_were_not_sent_are_no_reports(reporting: Reporting, ahead: int) -> None:
    reporting.send(9)
    reporting.report(lost=100, behind=-ahead)
    assert reporting.heard == (0, 0)


def test_a_report_that_comes_twice_counts_once(reporting: Reporting) -> None:
    reporting.send(9)
    for _ in range(100):
        reporting.report()
    reporting.lost = 8
    for _ in range(100):
        reporting.report()
    assert reporting.heard == (10, 0)


@pytest.mark.parametrize("lost", [-(1 << 23), (1 << 23) - 1])
def test_wild_numbers_of_lost_packets_are_bounded(reporting: Reporting, lost: int) -> None:
    for _ in range(3):
        reporting.lost = 0
        reporting.send(4)
        reporting.report(lost=lost)
        packets, missing = reporting.heard
        assert 0 <= missing <= packets <= 13


def test_much_loss_limits_below_what_was_sent(reporting: Reporting) -> None:
    reporting.send(100)
    reporting.report(lost=30)
    sent = 1_000 * 100 * 8 * 1.06
    assert reporting.limit == pytest.approx(sent * (1 - 0.3 / 2), rel=0.05)
    assert reporting.heard == (0, 0)


def test_what_was_sent_is_counted_whatever_was_sent_before(reporting: Reporting) -> None:
    """The mean size of a million packets falls by a part of a byte when smaller ones follow."""
    row = reporting.room.subscription()
    row["packets"] += 1_000_000
    row["first_highest"] -= 1_000_000
    row["octets"] = 1_000 * int(row["packets"])
    reporting.room.pass_time(SECOND)
    reporting.report()
    assert reporting.heard == (0, 0), "it was decided"
    reporting.send(100, size=950)
    reporting.report(lost=30)
    assert reporting.limit == pytest.approx(950 * 100 * 8 * 1.06 * (1 - 0.3 / 2), rel=0.05)


def test_what_was_sent_on_a_subscription_that_has_closed_counts(reporting: Reporting) -> None:
    other = reporting.open_another()
    reporting.send(100)
    other["packets"], other["octets"] = 100, 100_000
    close_subscription(reporting.room.record, 1)
    reporting.report(lost=30)
    assert reporting.limit == pytest.approx(1_000 * 200 * 8 * 1.06 * (1 - 0.3 / 2), rel=0.05)


def test_who_was_sent_nothing_for_long_is_not_sent_little_for_that(reporting: Reporting) -> None:
    reporting.room.pass_time(600 * SECOND)
    reporting.send(100)
    reporting.room.subscription()["bitrate_bps"] = 800_000
    reporting.report(lost=30)
    assert reporting.limit == pytest.approx(800_000 * (1 - 0.3 / 2), rel=0.05)


def test_without_much_loss_nothing_begins(reporting: Reporting) -> None:
    for _ in range(10):
        reporting.send(100)
        reporting.report(lost=9)
    assert reporting.limit == 0
    assert not reporting.room.transport()["estimated"]


def test_few_packets_say_nothing(reporting: Reporting) -> None:
    reporting.send(NEEDED_PACKETS - 2)
    reporting.room.pass_time(2 * SECOND)
    reporting.report(lost=10)
    assert reporting.limit == 0
    reporting.send(10)
    reporting.report()
    assert reporting.limit > 0


def test_who_grows_to_the_end_is_limited_no_more(reporting: Reporting) -> None:
    reporting.send(100)
    reporting.report(lost=30)
    reporting.room.memory.table("estimates")[reporting.viewer.row]["report_bps"] = 0.99 * MAX_BPS
    reporting.send(100)
    reporting.report()
    assert reporting.limit == 0


def test_who_gives_feedback_is_not_judged_by_reports(reporting: Reporting) -> None:
    reporting.room.transport()["estimated"] = 1
    reporting.room.memory.table("estimates")[reporting.viewer.row]["feedbacks"] = 1
    reporting.send(100)
    reporting.report(lost=50)
    take_receiver_estimate(reporting.room.record, reporting.viewer.row, 100_000, reporting.room.now)
    assert reporting.limit == 0
    assert reporting.heard == (0, 0)


def test_whose_feedback_may_still_come_is_not_judged_by_reports() -> None:
    reporting = Reporting()
    reporting.room.media()["numbered"] = 1
    reporting.room.transport()["unreported"] = 0
    reporting.send(100)
    take_receiver_estimate(reporting.room.record, reporting.viewer.row, 100_000, reporting.room.now)
    reporting.report(lost=50)
    assert reporting.limit == 0
    reporting.room.transport()["unreported"] = 1
    reporting.send(100)
    reporting.report(lost=50)
    assert reporting.limit > 0


def test_a_publisher_that_is_sent_nothing_has_no_estimate() -> None:
    room: Any = Room()
    take_receiver_estimate(room.record, 3, 100_000, room.now)
    assert not room.memory.table("transports")[3]["estimated"]


def test_the_first_number_is_the_base(reporting: Reporting) -> None:
    first = int(reporting.room.subscription()["first_highest"])
    assert SEQUENCE_START <= first < int(reporting.room.subscription()["out_highest"])
    reporting.report(lost=0)
    assert reporting.heard == (1, 0)
