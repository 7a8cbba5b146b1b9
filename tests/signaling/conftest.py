"""The call fixture: rooms over a fake engine and fake peer connections."""

from collections.abc import AsyncIterator

import pytest

from signaling.participants import renegotiation
from tests.signaling.support.call import Call
from tests.signaling.support.fake_peer_connection import FakeAnsweringConnection, FakeOfferingConnection


@pytest.fixture
async def call(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Call]:
    monkeypatch.setattr(renegotiation, "AnsweringConnection", FakeAnsweringConnection)
    monkeypatch.setattr(renegotiation, "OfferingConnection", FakeOfferingConnection)
    # Only `Call.collect` negotiates what was collected.
    monkeypatch.setattr(renegotiation, "COLLECT_S", 3600)
    running = Call()
    yield running
    await running.end()
