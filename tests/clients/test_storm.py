"""Many changes at the same time: whatever overlaps, in the end everybody hears everybody."""

import asyncio
import itertools
import random

import pytest

from tests.clients.conftest import PeerFactory
from tests.clients.facts import hears
from tests.clients.peers import BrowserPeer, SdkPeer
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

KINDS = ("chromium", "firefox", "sdk", "sdk-dual")
ROUNDS = 8
_UNPUBLISH = """
Promise.all([...room.localParticipant.trackPublications.values()].map(
  ({ track }) => room.localParticipant.unpublishTrack(track))).then(() => 1)
"""
_TOGGLE = """
[...room.remoteParticipants.values()].flatMap((one) => [...one.trackPublications.values()]).forEach((publication) => {
  publication.setSubscribed(false);
  publication.setSubscribed(true);
})
"""


async def _unpublish(peer: BrowserPeer | SdkPeer) -> None:
    if isinstance(peer, BrowserPeer):
        await peer.run(_UNPUBLISH)
    else:
        await peer.unpublish()


async def _toggle(peer: BrowserPeer | SdkPeer) -> None:
    """Unsubscribe from everything and subscribe again at once."""
    if isinstance(peer, BrowserPeer):
        await peer.run(f"void ({_TOGGLE.strip()})")
        return
    for participant in list(peer.room.remote_participants.values()):
        for publication in list(participant.track_publications.values()):
            publication.set_subscribed(False)
            publication.set_subscribed(True)


async def _act(peer: BrowserPeer | SdkPeer, dice: random.Random) -> None:
    """One change by one peer. Sound only: the machine shall be busy with negotiating, not with encoding."""
    await _unpublish(peer)
    match dice.randrange(3):
        case 0:
            await peer.publish_audio()
        case 1:
            await asyncio.gather(peer.publish_audio(), peer.publish_audio(), _toggle(peer))
        case 2:
            await _toggle(peer)


@pytest.mark.parametrize("seed", range(2))
async def test_after_a_storm_of_changes_everybody_hears_everybody(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, seed: int
) -> None:
    dice = random.Random(seed)
    peers: list[BrowserPeer | SdkPeer] = [await make_peer(kind, kind) for kind in KINDS]
    await asyncio.gather(*(peer.join(server, room) for peer in peers))
    for _ in range(ROUNDS):
        await asyncio.gather(*(_act(peer, dice) for peer in peers))
    await asyncio.gather(*(_unpublish(peer) for peer in peers))
    await asyncio.gather(*(peer.publish_audio() for peer in peers))
    pairs = itertools.permutations(peers, 2)
    await asyncio.gather(*(hears(listener, speaker.identity) for listener, speaker in pairs))
