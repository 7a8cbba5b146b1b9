"""Carries the datagrams of clients that know UDP only over TCP connections to an engine, in frames of RFC 4571."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

Address = tuple[str, int]


class TcpBridge(asyncio.DatagramProtocol):
    """A UDP port; each address that sends to it has a TCP connection of its own."""

    def __init__(self, port: int) -> None:
        self._engine_port = port
        self._writers: dict[Address, asyncio.StreamWriter] = {}
        self._waiting: dict[Address, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.frames = 0
        """Frames that came from the engine."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # uvloop's is none by its class
        self.port = int(transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, address: Address) -> None:
        frame = len(data).to_bytes(2) + data
        if address in self._writers:
            self._writers[address].write(frame)
        elif address in self._waiting:
            self._waiting[address].append(frame)
        else:
            self._waiting[address] = [frame]
            task = asyncio.get_running_loop().create_task(self._carry(address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @property
    def connections(self) -> int:
        return len(self._writers)

    def reset(self) -> None:
        """End every connection; the next datagram of a client begins another one."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    async def _carry(self, address: Address) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._engine_port)
        self._writers[address] = writer
        writer.writelines(self._waiting.pop(address))
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                self._transport.sendto(await reader.readexactly(size), address)
                self.frames += 1
        except (asyncio.IncompleteReadError, OSError):
            writer.close()
            if self._writers.get(address) is writer:
                del self._writers[address]

    async def close(self) -> None:
        self.reset()
        self._transport.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def tcp_bridge(port: int) -> AsyncIterator[TcpBridge]:
    """A bridge to the TCP port of an engine."""
    loop = asyncio.get_running_loop()
    _, bridge = await loop.create_datagram_endpoint(lambda: TcpBridge(port), ("127.0.0.1", 0))
    try:
        yield bridge
    finally:
        await bridge.close()
