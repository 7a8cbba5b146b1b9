"""What people behind a bottleneck see and hear: LiveKit's native SDK in short calls, of which each shows several things
that links do.

Media, signalling and TCP share the bottleneck's queues. `python -m bench network` has longer cases, and compares
servers. All figures are printed; what changes from run to run has wide bounds here.
"""

import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench.network.bottleneck import LATE_MS, OUTSIDE
from bench.network.case import Case, Download, Message, ViewerPlan
from bench.network.judge import LinkFigures, ViewFigures, judge, view
from bench.network.link import Conditions
from bench.network.namespaces import NetworkUnavailable
from bench.network.report import judged, sheets
from bench.network.run import Outcome, run_case
from bench.report.terminal import print_sheet
from bench.targets.livekit import LiveKit
from bench.targets.registry import make
from tests.clients.conftest import without_client

pytestmark = [
    pytest.mark.client,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]

WIDE_BPS, NARROW_BPS, SHARED_BPS, FAST_BPS = 3e6, 7e5, 1.5e6, 1e7
TOP_LINES = 720
BEHIND, BESIDE = ViewerPlan("behind"), ViewerPlan("beside", behind=False)
WIDE = Conditions(rate=((0, WIDE_BPS),), delay_ms=20)
MESSAGE_BYTES = 500_000
MAX_BUSY = 0.9
"""The share of all cores beyond which clients that encode and decode wait for them, and not for the link."""


def narrows(begin_s: float, end_s: float) -> Conditions:
    """A link that is narrow for some time."""
    return Conditions(rate=((0, WIDE_BPS), (begin_s, NARROW_BPS), (end_s, WIDE_BPS)), delay_ms=20)


def rough(seconds: float) -> Conditions:
    """A fast link with jitter that reorders packets for so long, and with chance loss after it."""
    jitter, loss = ((0, 30.0), (seconds, 0.0)), ((0, 0.0), (seconds, 0.05))
    return Conditions(rate=((0, FAST_BPS),), delay_ms=20, jitter_ms=jitter, reorder=True, loss=loss)


def server() -> LiveKit:
    made = make("aiosfu", {"address": OUTSIDE})
    assert isinstance(made, LiveKit)
    return made


def idle_s() -> float:
    """How long all cores together have been idle since the machine started."""
    return float(Path("/proc/uptime").read_text().split()[1])


async def outcome_of(case: Case, folder: Path) -> Outcome:
    """Run a case and print its figures. Where the bottleneck was late whenever it was tried, or the cores had no time
    for the clients, nothing was measured."""
    begun, idle = time.monotonic(), idle_s()
    try:
        outcome = await run_case(case, server, folder)
    except NetworkUnavailable as error:
        without_client(f"no bottleneck: {error}")
        raise
    for sheet in sheets(judged([outcome])):
        print_sheet(sheet, Console(width=160))
    busy = 1 - (idle_s() - idle) / ((time.monotonic() - begun) * (os.cpu_count() or 1))
    if busy > MAX_BUSY:
        pytest.skip(f"NOT MEASURED: the cores were busy for {busy:.0%} of the time, and {MAX_BUSY:.0%} are allowed")
    if not outcome.measured:
        late = f"{outcome.record.late_ms:.1f} ms late, and {LATE_MS:g} are allowed"
        pytest.skip(f"NOT MEASURED: in the last of {outcome.tries} runs the bottleneck was {late}")
    return outcome


def seen(outcome: Outcome, name: str, begin_s: float, end_s: float) -> ViewFigures:
    """What a viewer saw and heard in a part of a case."""
    return view(name, outcome.viewers[name], begin_s, end_s)


def narrow_phase(outcome: Outcome) -> LinkFigures:
    """The figures of the second phase, in which the link is narrow."""
    figures = judge(outcome).links[1]
    assert figures.capacity == NARROW_BPS
    return figures


async def test_a_viewer_whose_link_narrows_has_the_picture_that_fits_and_others_do_not_notice(
    own_network: None, tmp_path: Path
) -> None:
    case = Case("steps", "a viewer's link that narrows", 34, narrows(4, 17), WIDE, (BEHIND, BESIDE))
    outcome = await outcome_of(case, tmp_path)
    link, narrow = narrow_phase(outcome), seen(outcome, "behind", 4, 17)
    assert seen(outcome, "behind", 0, 4).lines == TOP_LINES
    assert link.within_s is not None
    assert link.within_s <= 2
    assert link.queue_over < 0.2
    assert link.dropped < 0.01
    assert 180 <= narrow.lines < TOP_LINES
    assert narrow.longest_s < 1
    assert narrow.concealed < 0.03
    assert seen(outcome, "behind", 7, 17).gap_ms <= 100
    assert seen(outcome, "behind", 28, 34).lines == TOP_LINES
    other = seen(outcome, "beside", 0, 34)
    assert (other.lines, other.switches) == (TOP_LINES, 0)
    assert other.concealed < 0.01
    assert other.longest_s < 1


async def test_everybody_goes_on_while_a_publishers_uplink_narrows(own_network: None, tmp_path: Path) -> None:
    uplink = narrows(4, 14)
    case = Case("uplink", "a publisher's uplink that narrows", 30, WIDE, uplink, (BESIDE,), publisher_behind=True)
    outcome = await outcome_of(case, tmp_path)
    assert seen(outcome, "beside", 0, 4).lines == TOP_LINES
    assert narrow_phase(outcome).within_s is not None
    narrow = seen(outcome, "beside", 4, 14)
    assert narrow.pictures > 0
    assert narrow.longest_s < 4
    assert seen(outcome, "beside", 7, 14).concealed < 0.03
    assert seen(outcome, "beside", 24, 30).lines >= 360
    assert seen(outcome, "beside", 14, 30).concealed < 0.01


async def test_jitter_and_chance_loss_leave_a_good_picture(own_network: None, tmp_path: Path) -> None:
    case = Case("rough", "jitter, then 5 % loss both ways", 26, rough(10), rough(10), (BEHIND,))
    outcome = await outcome_of(case, tmp_path)
    uneven, lossy = seen(outcome, "behind", 0, 10), seen(outcome, "behind", 12, 26)
    assert uneven.lines >= 360
    assert lossy.lines == TOP_LINES
    assert uneven.again < 0.3, "libwebrtc asks for what only comes late"
    assert uneven.concealed < 0.02
    assert uneven.longest_s < 0.6
    assert lossy.lost < 0.002
    assert lossy.longest_s < 1
    assert lossy.frozen_s < 0.15 * 14
    assert lossy.concealed < 0.02


async def test_a_download_beside_the_call_leaves_sound_and_picture(own_network: None, tmp_path: Path) -> None:
    download = Download(begins_s=3, ends_s=13)
    case = Case("download", "a TCP download beside the call", 28, WIDE, WIDE, (BEHIND,), download=download)
    outcome = await outcome_of(case, tmp_path)
    beside = seen(outcome, "behind", 3, 13)
    assert beside.concealed < 0.03
    assert beside.pictures > 10
    assert seen(outcome, "behind", 23, 28).lines == TOP_LINES
    assert seen(outcome, "behind", 16, 28).concealed < 0.01


async def test_two_viewers_share_a_link_and_a_large_message_leaves_their_sound(
    own_network: None, tmp_path: Path
) -> None:
    viewers = ViewerPlan("first"), ViewerPlan("second", joins_s=2)
    message = Message(at_s=24, size=MESSAGE_BYTES)
    shared = Conditions(rate=((0, SHARED_BPS),), delay_ms=20)
    case = Case("shared", "two viewers on 1.5 Mbit/s, then a message", 36, shared, WIDE, viewers, message=message)
    outcome = await outcome_of(case, tmp_path)
    both = [seen(outcome, name, 12, 24) for name in ("first", "second")]
    assert min(each.video_bps for each in both) >= 0.25 * sum(each.video_bps for each in both)
    assert min(each.pictures for each in both) > 30
    assert max(each.concealed for each in both) < 0.02
    for name, lines in outcome.viewers.items():
        assert MESSAGE_BYTES in {line.get("message") for line in lines}, f"{name} has no message"
        assert seen(outcome, name, 24, 36).concealed < 0.06
