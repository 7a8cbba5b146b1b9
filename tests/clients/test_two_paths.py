"""A browser that reaches the server over two ways, one of which goes dead without a word: media go on over the other.

What was measured is logged: `pytest --log-cli-level=INFO tests/clients/test_two_paths.py`.
"""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.clients.chromium import running_chromium
from tests.clients.conftest import PeerFactory, require_program, without_client
from tests.clients.firefox import running_firefox
from tests.clients.network import NetworkUnavailable
from tests.clients.peers import BrowserPeer, eventually
from tests.clients.sfu_server import ServerUnderTest, running_server
from tests.clients.two_paths import WAYS, TwoPaths, serving_loopback, two_paths, watching

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

LOG = logging.getLogger(__name__)
GOES_ON = 25
"""So many packets in one direction over one way are media, half a second of it."""
STRAYS = 15
"""Packets of 20 ms that the server may still send over the dead way after the client's first over the other."""
RETURN_S = 90
"""A browser that does not turn to its other pair by itself waits for its ICE to fail and then resumes."""
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
      const { state, nominated } = pair;
      rows.push({ name, from, to, state, nominated, selected: pair.selected ?? chosen.includes(pair.id) });
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
    with running_server(tmp_path_factory.mktemp("two"), node_ip=None) as running:
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
            browser = await exits.enter_async_context(running_firefox(ways.client))
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
    return "never" if at is None else f"{1000 * (at - start):.0f} ms"


async def _log_pairs(peer: BrowserPeer, when: str) -> None:
    for row in await peer.run(PAIRS):
        LOG.info("%s: %s", when, row)


@pytest.mark.parametrize("far", ["firefox", "chromium"], indirect=True)
async def test_media_go_on_over_the_other_way_when_one_goes_dead(
    ways: TwoPaths, server_of_two: ServerUnderTest, far: BrowserPeer, make_peer: PeerFactory, room: str
) -> None:
    near: BrowserPeer = await make_peer("chromium", "near")
    await near.join(server_of_two, room)
    await near.publish_audio()
    await far.page.evaluate(PERMIT)
    with watching(ways, server_of_two.udp_port):
        await far.join(server_of_two, room)
        await far.publish_audio()
        await eventually(lambda: _packets(near, "far"), "audio from the far end", detail=near.received)
        await eventually(lambda: _packets(far, "near"), "audio at the far end", detail=far.received)
        await _goes_on_over_the_best(ways, far)
        await _goes_on_after_the_cut(ways, far, near)


async def _goes_on_over_the_best(ways: TwoPaths, far: BrowserPeer) -> None:
    """Both ways are open and checked, and all media go over one."""
    since = time.monotonic()

    async def settled() -> bool:
        return max(ways.count(way, sent=True, since=since) for way in WAYS) > 4 * GOES_ON

    await eventually(settled, "media over one way")
    await _log_pairs(far, "before the cut")
    for way in WAYS:
        assert ways.count(way, sent=False, kind="stun"), f"way {way} is not checked"
    used = {(way, sent) for way in WAYS for sent in (False, True) if ways.count(way, sent=sent, since=since)}
    assert len({way for way, _ in used}) == 1, used
    assert len(used) == 2, used


async def _goes_on_after_the_cut(ways: TwoPaths, far: BrowserPeer, near: BrowserPeer) -> None:
    used = max(WAYS, key=lambda way: ways.count(way, sent=True))
    other = WAYS[1 - WAYS.index(used)]
    cut = ways.cut(used)

    async def flows() -> bool:
        return min(ways.count(other, sent=sent, since=cut) for sent in (False, True)) > GOES_ON

    await eventually(flows, "media over the other way", RETURN_S, detail=lambda: far.run(PAIRS))
    up, down = ways.first(other, sent=False, since=cut), ways.first(other, sent=True, since=cut)
    assert up is not None
    LOG.info("way %s cut: first media from the client over the other after %s", used, _after(up, cut))
    LOG.info("first media to it %s later", _after(down, up))
    for kind in ("stun", "dtls", "rtcp"):
        LOG.info(
            "first %s from the client there after %s",
            kind,
            _after(ways.first(other, sent=False, kind=kind, since=cut), cut),
        )
    await _log_pairs(far, "after the cut")
    LOG.info("events: %s", (await far.state())["events"])
    assert ways.count(used, sent=True, since=up) <= STRAYS, "the server does not follow"
    before = await _packets(near, "far"), await _packets(far, "near")

    async def heard() -> bool:
        return await _packets(near, "far") > before[0] and await _packets(far, "near") > before[1]

    await eventually(heard, "audio at both ends", detail=near.received)
