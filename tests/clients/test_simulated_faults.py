"""Faults that SDKs ask the server to simulate, one after the other in the same call."""

import asyncio
from typing import Any

import pytest
from livekit import rtc

from tests.clients.conftest import PeerFactory
from tests.clients.facts import had, hears
from tests.clients.peers import BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

NATIVE = (
    rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT,
    rtc.SimulateScenarioKind.SIMULATE_MIGRATION,
    rtc.SimulateScenarioKind.SIMULATE_NODE_FAILURE,
    rtc.SimulateScenarioKind.SIMULATE_FORCE_TCP,
    rtc.SimulateScenarioKind.SIMULATE_FORCE_TLS,
    rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT,
    rtc.SimulateScenarioKind.SIMULATE_DISCONNECT_SIGNAL_ON_RESUME,
)
OF_TWO_CONNECTIONS = NATIVE[1:4]
"""A resume, a full reconnect, and ICE that the server restarts."""
BROWSER = (
    "migration",
    "resume-reconnect",
    "disconnect-signal-on-resume",
    "disconnect-signal-on-resume-no-messages",
    "node-failure",
    "force-tcp",
    "force-tls",
    "leave-full-reconnect",
)
"""All but those with which `test_reconnect.py` breaks connections."""


async def _speaks(listener: SdkPeer, speaker: Any) -> None:
    """Wait until somebody who publishes nothing counts as a speaker, because that was simulated."""
    told: list[str] = []
    listener.room.on("active_speakers_changed", lambda speakers: told.extend(each.identity for each in speakers))
    if isinstance(speaker, SdkPeer):
        await speaker.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SPEAKER)
    else:
        await speaker.run("room.simulateScenario('speaker').then(() => 1)")

    async def counts() -> bool:
        return speaker.identity in told

    await eventually(counts, f"{speaker.identity} speaks")


async def _begin(server: ServerUnderTest, make_peer: PeerFactory, room: str, peer: Any) -> SdkPeer:
    """Let the peer and a listener in; returns the listener."""
    listener: SdkPeer = await make_peer("sdk", "listener")
    await listener.join(server, room)
    await peer.join(server, room)
    await _speaks(listener, peer)
    await asyncio.gather(listener.publish_audio(), peer.publish_audio())
    await _hear_each_other(listener, peer)
    return listener


async def _hear_each_other(one: Any, other: Any) -> None:
    await asyncio.gather(hears(one, other.identity), hears(other, one.identity))


@pytest.mark.parametrize("kind", ["sdk", "sdk-dual"])
async def test_native_clients_come_back_from_all_that_is_simulated(
    server: ServerUnderTest, make_peer: PeerFactory, room: str, kind: str
) -> None:
    ann: SdkPeer = await make_peer(kind, "ann")
    listener = await _begin(server, make_peer, room, ann)
    events: list[str] = []
    ann.room.on("reconnected", lambda: events.append("reconnected"))
    ann.room.on("disconnected", lambda reason: events.append(f"disconnected {reason}"))
    for number, scenario in enumerate(NATIVE if kind == "sdk" else OF_TWO_CONNECTIONS, 1):
        await ann.room.simulate_scenario(scenario)

        async def is_back(times: int = number) -> bool:
            return len(events) >= times

        await eventually(is_back, f"back from scenario {scenario}", detail=lambda: _told(events))
        await _hear_each_other(listener, ann)
    assert set(events) == {"reconnected"}
    await ann.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_SERVER_LEAVE)

    async def is_out() -> bool:
        return events[-1] == f"disconnected {rtc.DisconnectReason.SERVER_SHUTDOWN}"

    await eventually(is_out, "the end", detail=lambda: _told(events))


async def _told(events: list[str]) -> list[str]:
    return events


async def test_a_browser_comes_back_from_all_that_is_simulated(
    server: ServerUnderTest, make_peer: PeerFactory, room: str
) -> None:
    ada: BrowserPeer = await make_peer("chromium", "ada")
    listener = await _begin(server, make_peer, room, ada)

    async def returns() -> int:
        return sum(kind == "Reconnected" for kind, *_ in (await ada.state())["events"])

    for scenario in BROWSER:
        before = await returns()
        await ada.run(f"room.simulateScenario('{scenario}').then(() => 1)")

        async def is_back(before: int = before) -> bool:
            return await returns() > before

        await eventually(is_back, f"back from {scenario}", detail=ada.state)
        await _hear_each_other(listener, ada)
    await ada.run("room.simulateScenario('server-leave').then(() => 1)")
    await had(ada, "Disconnected", rtc.DisconnectReason.SERVER_SHUTDOWN)
