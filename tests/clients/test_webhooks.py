"""Webhooks of a visit with LiveKit's SDK: what an application hears, from the first room to the server's end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from livekit.protocol import models

from tests.clients.conftest import PeerFactory
from tests.clients.network import ADDRESS
from tests.clients.sfu_server import KEY, running_server
from tests.signaling.support.receiver import Receiver, receiving

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def receiver(own_network: None) -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


async def test_a_visit_is_told_in_order_and_the_servers_end_too(
    receiver: Receiver, make_peer: PeerFactory, room: str, tmp_path: Path
) -> None:
    file = tmp_path / "livekit.yaml"
    file.write_text(f"webhook:\n  api_key: {KEY}\n  urls:\n    - {receiver.url}\n")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_server(tmp_path, node_ip=ADDRESS, extra=("--config", str(file))))
        ann = await make_peer("sdk", "ann")
        await ann.join(server, room)
        await receiver.wait_for(2)
        await ann.publish_audio()
        await receiver.wait_for(3)
        publication = next(iter(ann.room.local_participant.track_publications.values()))
        publication.track.mute()
        bob = await make_peer("sdk-dual", "bob")
        await bob.join(server, room)
        await receiver.wait_for(4)
        await ann.leave()
        await receiver.wait_for(6)
        await asyncio.to_thread(stack.close)  # the receiver answers meanwhile
    await receiver.wait_for(8)
    assert [(event.event, event.participant.identity) for event in receiver.events] == [
        ("room_started", ""),
        ("participant_joined", "ann"),
        ("track_published", "ann"),
        ("participant_joined", "bob"),
        ("track_unpublished", "ann"),
        ("participant_left", "ann"),
        ("participant_left", "bob"),
        ("room_finished", ""),
    ]
    assert {event.room.name for event in receiver.events} == {room}
    assert [event.room.num_participants for event in receiver.events if event.room.num_participants] == [1, 2, 1]
    published, unpublished = receiver.events[2].track, receiver.events[4].track
    assert (published.sid, published.type) == (unpublished.sid, models.AUDIO)
    assert (published.muted, unpublished.muted) == (False, True)
    reasons = [event.participant.disconnect_reason for event in receiver.events[5:7]]
    assert reasons == [models.CLIENT_INITIATED, models.SERVER_SHUTDOWN]
