"""Who is given TCP candidates only, and for how long."""

import json
from typing import Any

import pytest
from livekit.protocol import models, rtc

from signaling.config.ice_options import IceOptions
from signaling.records.fallbacks import KEPT_S, MAX_CLIENTS, SHORT_LIVED_S, TRIED_S, Fallbacks
from tests.signaling.support.call import Call, Client


def protocols(client: Client) -> list[str]:
    """The protocols of the candidates that a client was sent by trickle."""
    return [json.loads(each.candidateInit)["candidate"].split()[2] for each in client.of("trickle")]


async def begun(call: Call, identity: str, **settings: Any) -> Client:
    """A client that has negotiated."""
    client = await call.join(identity, **settings)
    await client.offer()
    return client


async def test_candidates_are_repeated_by_trickle_once_and_the_last_is_final(call: Call) -> None:
    ann = await begun(call, "ann")
    trickles = ann.of("trickle")
    assert protocols(ann) == ["udp", "tcp"]
    assert [each.final for each in trickles] == [False, True]
    assert {each.target for each in trickles} == {rtc.PUBLISHER}
    assert ann.kinds().index("answer") < ann.kinds().index("trickle")
    await ann.offer(2)
    assert len(ann.of("trickle")) == 2


async def test_candidates_come_for_each_connection_and_again_after_a_restart(call: Call) -> None:
    ann = await call.join("ann", single_pc=False)
    assert [each.target for each in ann.of("trickle")] == 2 * [rtc.SUBSCRIBER]
    await ann.offer()
    assert [each.target for each in ann.of("trickle")] == 2 * [rtc.SUBSCRIBER] + 2 * [rtc.PUBLISHER]


async def test_who_failed_soon_gets_tcp_alone_for_a_while(call: Call) -> None:
    ann = await begun(call, "ann")
    await ann.connect()
    call.now += SHORT_LIVED_S
    ann.participant.presence.last_message_at = call.now
    await ann.fail()
    again = await begun(call, "ann")
    assert protocols(again) == ["tcp"]
    assert protocols(await begun(call, "bob")) == ["udp", "tcp"]
    call.now += KEPT_S
    assert protocols(await begun(call, "ann")) == ["udp", "tcp"]


async def test_who_failed_over_tcp_too_gets_everything_again(call: Call) -> None:
    for expected in (["udp", "tcp"], ["tcp"], ["udp", "tcp"]):
        ann = await begun(call, "ann")
        assert protocols(ann) == expected
        await ann.connect()
        await ann.fail()


async def test_a_connection_that_lasted_and_one_of_a_silent_client_say_nothing_of_udp(call: Call) -> None:
    ann = await begun(call, "ann")
    await ann.connect()
    call.now += SHORT_LIVED_S + 1
    ann.participant.presence.last_message_at = call.now
    await ann.fail()
    assert protocols(await begun(call, "ann")) == ["udp", "tcp"]
    bob = await begun(call, "bob")
    await bob.connect()
    call.now += 60
    await bob.fail()
    assert protocols(await begun(call, "bob")) == ["udp", "tcp"]


@pytest.mark.parametrize(("stayed_s", "expected"), [(TRIED_S, ["tcp"]), (TRIED_S - 1, ["udp", "tcp"])])
async def test_who_left_without_ever_being_connected_has_tried(
    call: Call, stayed_s: float, expected: list[str]
) -> None:
    ann = await begun(call, "ann")
    call.now += stayed_s
    await ann.send(leave=rtc.LeaveRequest())
    assert protocols(await begun(call, "ann")) == expected


async def test_simulation_chooses_what_the_client_gets_next(call: Call) -> None:
    for protocol, expected in ((rtc.TCP, ["tcp"]), (rtc.TLS, ["tcp"]), (rtc.UDP, ["udp", "tcp"])):
        ann = await begun(call, "ann")
        await ann.send(simulate=rtc.SimulateScenario(switch_candidate_protocol=protocol))
        assert protocols(await begun(call, "ann")) == expected


class Ann:
    """A participant whose connection fails."""

    room_name, identity, joined_at, active, only_tcp = "room", "ann", 0.0, False, False
    client = models.ClientInfo(sdk=models.ClientInfo.JS)


def made(options: IceOptions, now: float = 1.0) -> Fallbacks:
    return Fallbacks(options, lambda: now)


def test_some_never_fall_back() -> None:
    go = Ann()
    go.client = models.ClientInfo(sdk=models.ClientInfo.GO)
    for fallbacks, client in (
        (made(IceOptions()), go),
        (made(IceOptions(tcp_fallback=False)), Ann()),
        (made(IceOptions(tcp_port=0)), Ann()),
    ):
        fallbacks.failed(client)
        assert not fallbacks.only_tcp("room", "ann")
    forced = made(IceOptions(force_tcp=True))
    assert forced.only_tcp("room", "anybody")


def test_so_many_are_remembered() -> None:
    fallbacks = made(IceOptions())
    for number in range(MAX_CLIENTS + 1):
        fallbacks.set("room", f"ann{number}", only_tcp=True)
    assert len(fallbacks._until) == MAX_CLIENTS
    assert not fallbacks.only_tcp("room", "ann0")
    assert fallbacks.only_tcp("room", f"ann{MAX_CLIENTS}")
