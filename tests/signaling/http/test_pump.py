"""signaling/http/pump.py: what a client in the TLS of the main port may do after its end, and without reading."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from signaling.http import pump as module
from signaling.http.pump import Pump


class PlayedTransport:
    """The TLS of a client."""

    def __init__(self) -> None:
        self.aborted = asyncio.Event()

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted.set()


@pytest.fixture
def transport() -> PlayedTransport:
    return PlayedTransport()


@pytest.fixture
async def pump(transport: PlayedTransport) -> AsyncIterator[Pump]:
    made = Pump(cast("asyncio.Transport", transport))
    yield made
    made.connection_lost(None)
    made.theirs.close()


async def test_what_a_client_still_says_after_its_end_is_nothing(pump: Pump, transport: PlayedTransport) -> None:
    pump.theirs.close()
    for _ in range(3):
        pump.data_received(b"more")
    assert transport.aborted.is_set()
    pump.pause_writing()
    pump.resume_writing()


async def test_who_does_not_read_is_closed_after_a_while(
    pump: Pump, transport: PlayedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump.pause_writing()
    pump.resume_writing()
    assert not transport.aborted.is_set()
    monkeypatch.setattr(module, "UNREAD_S", 0.0)
    pump.pause_writing()
    await asyncio.wait_for(transport.aborted.wait(), 10)


async def test_who_reads_again_is_not_closed(
    pump: Pump, transport: PlayedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNREAD_S", 0.0)
    pump.pause_writing()
    pump.resume_writing()
    await asyncio.sleep(0.01)
    assert not transport.aborted.is_set()
