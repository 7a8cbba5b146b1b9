"""A browser that reaches the server over two ways, one of which goes dead without a word: media go on over the other.

What was measured is logged: `pytest --log-cli-level=INFO tests/clients/test_two_paths.py`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from bench.network.namespaces import NetworkUnavailable
from tests.clients.chromium import running_chromium
from tests.clients.conftest import PeerFactory, require_program, without_client
from tests.clients.firefox import running_firefox
from tests.clients.peers import BrowserPeer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server
from tests.clients.two_paths import SUBNETS, WAYS, Seen, TwoPaths, serving_loopback, two_paths, watching

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

LOG = logging.getLogger(__name__)
BEST, OTHER = WAYS
"""Both browsers prefer their first address, and it has the pairs of highest priority."""
GOES_ON = 25
"""So many packets in one direction over one way are media, half a second of it."""
STEADY_S = 2
STRAYS = 10
"""Packets of 20 ms that the server may still send over the dead way after the client's first over the other: 200 ms."""
RETURN_S = 60
"""A browser that does not turn to its other pair by itself comes back when it, or the server, misses its checks."""
PERMIT = "navigator.mediaDevices.getUserMedia({audio: true}).then((stream) => void (window.kept = stream))"
"""Only a page that has a microphone is given all addresses of its machine for candidates."""
PAIRS = """(async () => {
  const rows = [];
  for (const name of ["publisher", "subscriber"]) {
    const stats = await room.engine.pcManager[name]?.getStats();
    if (!stats) continue;
    const chosen = [...stats.values()].map(({ selectedCandidatePairId }) => selectedCandidatePairId);
    for (const pair of stats.values()) {
      if (pair.type !== "candidate-pair") continue;
      const [from, to] = [pair.localCandidateId, pair.remoteCandidateId].map((id) => stats.get(id)?.address ?? "");
      const { state, nominated, priority } = pair;
      rows.push({ name, from, to, state, nominated, priority, selected: pair.selected ?? chosen.includes(pair.id) });
    }
  }
  return rows;
})()"""


@pytest.fixture(scope="module")
def ways(own_network: None) -> Iterator[TwoPaths]:
    try:
        with two_paths() as made:
            yield made
    except NetworkUnavailable as error:
        without_client(f"no second network namespace: {error}")


@pytest.fixture(scope="module")
def server_of_two(ways: TwoPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    # Without ICE over TCP, to which a client is sent back whose connection failed so soon.
    with running_server(tmp_path_factory.mktemp("two"), node_ip=None, extra=("--rtc.tcp_port", "0")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def far(
    request: pytest.FixtureRequest, ways: TwoPaths, server_of_two: ServerUnderTest, pages: str, tmp_path: Path
) -> AsyncIterator[BrowserPeer]:
    """A browser at the far end, of the kind that the test's parameter names."""
    async with contextlib.AsyncExitStack() as exits:
        await exits.enter_async_context(serving_loopback(ways, server_of_two.port, urlsplit(pages).port or 0))
        page: Any
        if request.param == "firefox":
            require_program("firefox-esr")
            browser = await exits.enter_async_context(running_firefox(ways.client, all_addresses=True))
            page = await browser.open_page(pages)
        else:
            require_program("chromium")
            program = tmp_path / "chromium"
            program.write_text(f'#!/bin/sh\nexec {" ".join(ways.client.prefix())} chromium "$@"\n')
            program.chmod(0o755)
            page = await (await exits.enter_async_context(running_chromium(program=program))).new_page()
            await page.goto(pages)
        yield BrowserPeer(page, "far")
        for way in WAYS:
            ways.join(way)


async def _packets(peer: BrowserPeer, identity: str) -> int:
    media = (await peer.received()).get(identity, {}).get("microphone")
    return media.packets if media is not None and media.energy > 0 else 0


def _after(at: float | None, start: float) -> str:
    return "never" if at is None else f"after {1000 * (at - start):.0f} ms"


async def _selected(peer: BrowserPeer, when: str) -> dict[str, Any]:
    """The pair that the client's only peer connection sends on, as its statistics say; all open ones are logged."""
    rows = [row for row in await peer.run(PAIRS) if row["state"] == "succeeded"]
    for row in rows:
        LOG.info("%s: %s", when, row)
    (selected,) = (row for row in rows if row["selected"])
    return dict(selected)


@pytest.mark.parametrize("far", ["firefox", "chromium"], indirect=True)
async def test_media_go_on_over_the_other_way_when_one_goes_dead(
    ways: TwoPaths, server_of_two: ServerUnderTest, far: BrowserPeer, make_peer: PeerFactory, room: str
) -> None:
    near: BrowserPeer = await make_peer("chromium", "near")
    await near.join(server_of_two, room)
    await near.publish_audio(dtx=False)
    await far.page.evaluate(PERMIT)
    with watching(ways, server_of_two.udp_port):
        await _join_by_both_ways(ways, server_of_two, far, room)
        await far.publish_audio(dtx=False)
        await eventually(lambda: _packets(near, "far"), "audio from the far end", detail=near.received)
        await eventually(lambda: _packets(far, "near"), "audio at the far end", detail=far.received)
        await _stays_on_the_best(ways, far)
        await _goes_on_after_the_cut(ways, far)
        await _is_heard(near, far)


async def _join_by_both_ways(ways: TwoPaths, server: ServerUnderTest, far: BrowserPeer, room: str) -> None:
    """Join while the best way is dead, and let it live when a check over the other was answered: so both are open.

    A browser whose best pair is the first to be answered has no other one: Firefox cancels the checks of the others.
    """

    async def answered() -> bool:
        return ways.count(OTHER, sent=True, kind="stun") > 0

    ways.cut(BEST)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(far.join(server, room))
        await eventually(answered, "an answered check", poll_s=0.02)
        ways.join(BEST)


async def _stays_on_the_best(ways: TwoPaths, far: BrowserPeer) -> None:
    """All that is not a check goes over one pair in both directions, the best that the client has open."""

    async def settled() -> Seen | None:
        since = time.monotonic() - STEADY_S
        recent = [seen for seen in list(ways.seen) if seen.at > since and seen.kind != "stun"]
        pairs = {(seen.client, seen.server) for seen in recent}
        media = [sum(seen.sent == sent and seen.kind == "rtp" for seen in recent) for sent in (False, True)]
        return recent[-1] if len(pairs) == 1 and min(media) > GOES_ON else None

    used: Seen = await eventually(settled, "media over one pair")
    selected = await _selected(far, "before the cut")
    assert (selected["from"], selected["to"]) == (used.client.partition(":")[0], used.server)
    assert used.way == BEST
    checks = {seen.way for seen in list(ways.seen) if seen.kind == "stun" and seen.sent}
    assert checks == set(WAYS), "the other way is not open"


async def _goes_on_after_the_cut(ways: TwoPaths, far: BrowserPeer) -> None:
    """What the client sends over the other way is followed: at once if it moved by itself, else as it comes back."""
    cut = ways.cut(BEST)

    async def flows() -> bool:
        there = [ways.count(OTHER, sent=sent, since=cut) for sent in (False, True)]
        reports = [ways.count(OTHER, sent=sent, kind="rtcp", since=cut) for sent in (False, True)]
        return min(there) > GOES_ON and min(reports) > 0

    await eventually(flows, "media over the other way", RETURN_S, detail=lambda: far.run(PAIRS))
    first = {kind: ways.first(OTHER, sent=False, kind=kind, since=cut) for kind in ("stun", "dtls", "rtp", "rtcp")}
    for kind, at in first.items():
        LOG.info("first %s from the client over the other way: %s", kind, _after(at, cut))
    events = [event[0] for event in (await far.state())["events"]]
    LOG.info("the client says: %s", events)
    moved = first["rtp"]
    assert moved is not None
    by_itself = first["dtls"] is None
    assert by_itself != ("Reconnecting" in events)
    strays = ways.count(BEST, sent=True, since=moved)
    answered = ways.first(OTHER, sent=True, since=moved)
    LOG.info("by itself: %s; the server's media follow %s, %d strays", by_itself, _after(answered, moved), strays)
    assert strays <= STRAYS, "the server does not follow"
    selected = await _selected(far, "after the cut")
    assert selected["from"].startswith(SUBNETS[OTHER])
    assert selected["to"].startswith(SUBNETS[OTHER])


async def _is_heard(near: BrowserPeer, far: BrowserPeer) -> None:
    before = await _packets(near, "far"), await _packets(far, "near")

    async def heard() -> bool:
        return await _packets(near, "far") > before[0] and await _packets(far, "near") > before[1]

    await eventually(heard, "audio at both ends", detail=near.received)
