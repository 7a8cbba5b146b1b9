"""The bottleneck between two namespaces: everything that goes over it waits in one queue for each direction."""

import asyncio
import socket
from collections import Counter

import pytest

from bench.network.bottleneck import INSIDE, OUTSIDE, bottleneck
from bench.network.counts import DOWN, UP
from bench.network.link import Conditions
from bench.network.namespaces import NetworkUnavailable
from tests.clients.conftest import without_client

pytestmark = [pytest.mark.client, pytest.mark.alone, pytest.mark.asyncio(loop_scope="session")]

SIZE = 150_000
PATIENCE_S = 60


def connect(port: int) -> socket.socket:
    return socket.create_connection((OUTSIDE, port), PATIENCE_S)


def receive(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((INSIDE, port))
    made.settimeout(PATIENCE_S)
    return made


async def test_tcp_and_udp_share_one_queue(own_network: None) -> None:
    narrow = Conditions(rate=((0, 1e6),), queue_ms=400, delay_ms=10)

    async def send(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(SIZE))
        await writer.drain()
        writer.close()

    try:
        async with (
            bottleneck(narrow, Conditions(delay_ms=10)) as link,
            await asyncio.start_server(send, OUTSIDE, 0) as far,
        ):
            port = far.sockets[0].getsockname()[1]
            datagrams = link.clients.inside(lambda: receive(port))
            await link.begin()
            with link.clients.inside(lambda: connect(port)) as stream, datagrams:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    got = 0
                    while data := await asyncio.to_thread(stream.recv, 1 << 16):
                        got += len(data)
                        sender.sendto(b"\x00\x01" + bytes(100), (INSIDE, port))
                received = await asyncio.to_thread(datagrams.recv, 2000)
            record = await link.end()
    except NetworkUnavailable as error:
        without_client(f"no bottleneck: {error}")
    assert got == SIZE
    assert len(received) == 102
    sizes, waits = Counter[str](), Counter[str]()
    for _, stream_name, count in record.select(DOWN, 0, PATIENCE_S):
        sizes[stream_name] += count.size
        waits[stream_name] = max(waits[stream_name], int(count.waited_ms))
    assert sizes["tcp"] > SIZE
    assert min(waits["tcp"], waits["stun"]) > 20
    assert sum(count.packets for *_, count in record.select(UP, 0, PATIENCE_S)) > 0
    seconds = 8 * sizes["tcp"] / 1e6
    assert max(bucket for bucket, *_ in record.select(DOWN, 0, PATIENCE_S)) >= int(10 * (seconds - 0.5))
