"""Whatever breaks between clients and the server, they come back by themselves and find everything as it was."""

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from livekit import rtc
from livekit.api import LiveKitAPI
from livekit.protocol import models
from livekit.protocol import room as protocol

from bench.network.namespaces import Namespace, NetworkUnavailable
from tests.clients.chromium import running_chromium
from tests.clients.conftest import Browsers, require_program, without_client
from tests.clients.facts import had
from tests.clients.fault_call import SOURCES, FaultCall, Sleepers, Talk, alternates, visits
from tests.clients.faulty_path import RELAY, faulty_path, relay_namespace
from tests.clients.peers import BrowserPeer, SdkPeer
from tests.clients.process_peer import process_peer
from tests.clients.sfu_server import KEY, SECRET, ServerUnderTest, running_server
from tests.signaling.support.receiver import Receiver, receiving

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

OUTAGE_S = 2.0
DARK_S = 20.0
ASLEEP_S = 75.0
"""Longer than anything that the server or a client waits for."""


@pytest.fixture(scope="module")
def relay(own_network: None) -> Iterator[Namespace]:
    try:
        with relay_namespace() as namespace:
            yield namespace
    except NetworkUnavailable as error:
        without_client(f"no second network namespace: {error}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def receiver(own_network: None) -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def far_server(
    relay: Namespace, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerUnderTest]:
    """A server behind the relay, which tells the receiver of everything."""
    folder: Path = tmp_path_factory.mktemp("far")
    file = folder / "livekit.yaml"
    file.write_text(f"webhook:\n  api_key: {KEY}\n  urls:\n    - {receiver.url}\n")
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(running_server(folder, node_ip=RELAY, extra=("--config", str(file))))
        await asyncio.to_thread(stack.close)  # the receiver answers meanwhile


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def call(
    far_server: ServerUnderTest, relay: Namespace, browsers: Browsers, pages: str
) -> AsyncIterator[FaultCall]:
    """A browser and two native clients that know, hear and see each other. Fault after fault happens to them."""
    async with (
        faulty_path(far_server, relay) as path,
        LiveKitAPI(far_server.http_url, KEY, SECRET) as api,
        contextlib.AsyncExitStack() as exits,
    ):
        made = FaultCall(path, api, f"room-{uuid.uuid4().hex[:8]}")
        page = await browsers.open_page("chromium", pages)
        exits.push_async_callback(page.close)
        ada, grace, linus = (
            BrowserPeer(page, "ada", {"adaptiveStream": True}),
            SdkPeer("grace"),
            SdkPeer("linus", single_pc=False),
        )
        for peer in (ada, grace, linus):
            exits.push_async_callback(peer.leave)
            await made.join(peer)
        await _change_at_run_time(made, ada, grace, linus)
        await made.everybody_hears_everybody()
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sleepers(call: FaultCall, pages: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sleepers]:
    """A laptop and a native client in the call that are stopped, and go on when the test of them says so. They sleep
    while the faults of the others happen, because that takes as long."""
    others = call.path.connections()
    async with contextlib.AsyncExitStack() as exits:
        laptop, fall_asleep = await exits.enter_async_context(_laptop(pages, tmp_path_factory.mktemp("laptop")))
        robot = await exits.enter_async_context(process_peer("robot"))
        await call.join(laptop)
        await call.join(robot)
        await laptop.run("room.localParticipant.setAttributes({seat: '7'}).then(() => 1)")
        await call.everybody_hears_everybody()
        before, sids = await call.lasting(), await call.sids()
        fall_asleep(True)
        robot.sleep()
        asleep = Sleepers([laptop, robot], before, sids, asyncio.get_running_loop().time())
        call.part_from(asleep)
        call.path.spared = call.path.connections() - others

        def wake() -> None:
            fall_asleep(False)
            robot.wake()

        asleep.wake = wake
        yield asleep


async def _change_at_run_time(call: FaultCall, ada: BrowserPeer, grace: SdkPeer, linus: SdkPeer) -> None:
    """Give each something that no token said when it joined."""
    await ada.run("room.localParticipant.setMetadata('hand up').then(() => 1)")
    await ada.run("room.localParticipant.setAttributes({colour: 'red'}).then(() => 1)")
    await grace.room.local_participant.set_name("Rear Admiral")
    await grace.publish_video()
    camera = await linus.publish_video()
    track = linus.room.local_participant.track_publications[camera].track
    assert track is not None
    track.mute()
    permission = models.ParticipantPermission(can_publish=True, can_subscribe=True, can_publish_data=True)
    permission.can_publish_sources.extend(SOURCES)
    request = protocol.UpdateParticipantRequest(room=call.room, identity="linus", permission=permission)
    await call.api.room.update_participant(request)


async def _wish_for_camera(call: FaultCall, wished: bool) -> None:
    """Let grace choose whether she is sent the picture of linus."""
    for publication in call.native("grace").room.remote_participants["linus"].track_publications.values():
        publication.set_subscribed(wished or publication.source != rtc.TrackSource.SOURCE_CAMERA)
    await call.preferences_become(lambda preferences: (("grace", "linus", "video") in preferences) == wished)


async def _resumes(call: FaultCall, break_way: Callable[[], None]) -> None:
    """Break the way under talk; everybody resumes, and all that was said arrives."""
    await _wish_for_camera(call, False)
    before, sids, preferences = await call.lasting(), await call.sids(), await call.preferences()
    returns = await call.count_returns()
    talks = [Talk(peer, uuid.uuid4().hex) for peer in call.peers]
    for talk in talks:
        await talk.begin()
    await asyncio.sleep(OUTAGE_S / 2)
    break_way()
    await call.are_back(returns)
    await asyncio.sleep(OUTAGE_S / 2)
    for talk in talks:
        await talk.end()
    for talk in talks:
        for listener in call.peers:
            if listener is not talk.peer:
                await talk.arrives_once_and_in_order(listener)
    assert await call.sids() == sids
    await call.is_as_before(before)
    await call.preferences_become(lambda now: now == preferences)
    await call.everybody_hears_everybody()
    await _wish_for_camera(call, True)


@pytest.mark.usefixtures("sleepers")
async def test_who_loses_the_signal_resumes_also_by_two_sockets_at_once(call: FaultCall) -> None:
    """One client's attempt reaches the server twice, as when an attempt that it gave up is served late."""

    def cut() -> None:
        call.path.double = True
        call.path.cut_signal()

    await _resumes(call, cut)
    assert call.path.doubled == 1


@pytest.mark.usefixtures("sleepers")
async def test_who_changes_its_address_resumes(call: FaultCall) -> None:
    await _resumes(call, call.path.change_address)
    assert call.path.lost > 0


@pytest.mark.usefixtures("sleepers")
async def test_who_loses_media_for_long_is_in_the_call_again(call: FaultCall) -> None:
    before, sids = await call.lasting(), await call.sids()
    call.path.dark = True
    await asyncio.sleep(DARK_S)
    call.path.dark = False
    await call.is_as_before(before)
    await call.everybody_hears_everybody()
    assert not set((await call.sids()).values()) & set(sids.values())


async def test_who_slept_is_in_the_call_again(call: FaultCall, sleepers: Sleepers, receiver: Receiver) -> None:
    await asyncio.sleep(sleepers.since + ASLEEP_S - asyncio.get_running_loop().time())
    sleepers.wake()
    call.peers.extend(sleepers.peers)
    await call.is_as_before(sleepers.before)
    await call.everybody_hears_everybody()
    now = await call.sids()
    assert not {now[peer.identity] for peer in sleepers.peers} & set(sleepers.sids.values())
    for peer in sleepers.peers:
        await peer.leave()
    call.part_from(sleepers)
    told = visits(event for event in receiver.events if event.room.name == call.room)
    assert {who: alternates(stays) for who, stays in told.items()} == dict.fromkeys(sleepers.before, True)


@contextlib.asynccontextmanager
async def _laptop(pages: str, folder: Path) -> AsyncIterator[tuple[BrowserPeer, Callable[[bool], None]]]:
    """A browser of its own, and a function that stops all of its processes (True) or lets them go on."""
    require_program("chromium")
    program, number = folder / "chromium", folder / "process"
    program.write_text(f'#!/bin/sh\necho $$ > {number}\nexec chromium "$@"\n')
    program.chmod(0o755)
    async with running_chromium(program=program) as browser:
        page = await browser.new_page()
        await page.goto(pages)

        def fall_asleep(asleep: bool) -> None:
            os.killpg(int(number.read_text()), signal.SIGSTOP if asleep else signal.SIGCONT)

        try:
            yield BrowserPeer(page, "laptop"), fall_asleep
        finally:
            fall_asleep(False)


async def test_who_was_in_a_call_is_in_it_again_when_the_server_was_killed(
    call: FaultCall, far_server: ServerUnderTest, receiver: Receiver
) -> None:
    before, sids, preferences = await call.lasting(), await call.sids(), await call.preferences()
    await asyncio.sleep(OUTAGE_S)
    far_server.kill()
    await asyncio.to_thread(far_server.start_again)
    await call.is_as_before(before)
    await call.preferences_become(lambda now: now == preferences)
    await call.everybody_hears_everybody()
    assert not set((await call.sids()).values()) & set(sids.values())


async def test_a_mute_that_a_client_missed_holds_when_it_is_back(call: FaultCall) -> None:
    ada: BrowserPeer = next(peer for peer in call.peers if peer.identity == "ada")
    (track,) = (await call.participants())["ada"].tracks
    returns = await call.count_returns()
    call.path.closed = True
    call.path.cut_signal()
    mute = protocol.MuteRoomTrackRequest(room=call.room, identity="ada", track_sid=track.sid, muted=True)
    assert (await call.api.room.mute_published_track(mute)).track.muted
    call.path.closed = False
    await call.are_back(returns)
    await had(ada, "TrackMuted", track.sid)
    assert not await ada.run("room.localParticipant.isMicrophoneEnabled")
    assert (await call.participants())["ada"].tracks[0].muted
