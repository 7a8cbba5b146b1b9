"""bench/servers/bridge.py: datagrams that go to a server by other ways than UDP."""

import asyncio
from pathlib import Path

import pytest

from bench.servers.bridge import LOOPBACK, open_way
from bench.targets.aiosfu import Aiosfu, write_certificate
from signaling.config.options import TlsOptions
from signaling.http.certificates import load_context


class Endpoint(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.put_nowait(data)


async def test_datagrams_go_in_frames_over_tcp() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(7):  # so that frames come in pieces
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with await asyncio.start_server(echo, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        way = await open_way("tcp", (LOOPBACK, 1), {"tcp": port}, ("", ""))
        transport, endpoint = await loop.create_datagram_endpoint(Endpoint, remote_addr=(LOOPBACK, way.port))
        packets = [b"a", bytes(1200), b"bcd"]
        for packet in packets:
            transport.sendto(packet)
        async with asyncio.timeout(10):
            assert [await endpoint.heard.get() for _ in packets] == packets
        transport.close()
        way.close()
        await ended.wait()


def test_a_way_that_is_none_is_refused() -> None:
    assert Aiosfu({"way": "turn-tls"}).name == "aiosfu-over-turn-tls"
    with pytest.raises(ValueError, match="way is one of tcp, turn-udp, turn-tcp, turn-tls"):
        Aiosfu({"way": "carrier-pigeon"})


def test_the_certificate_can_be_served(tmp_path: Path) -> None:
    load_context(TlsOptions(*write_certificate(tmp_path)))
