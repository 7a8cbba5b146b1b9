"""How clients are to connect whose connection failed, and for how long."""

import json
from typing import Any

import pytest
from livekit.protocol import models, rtc

from signaling.config.ice_options import IceOptions
from signaling.records.fallbacks import KEPT_S, MAX_CLIENTS, SHORT_LIVED_S, TRIED_S, Fallbacks, Way
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
    for protocol, expected in ((rtc.TCP, ["tcp"]), (rtc.TLS, ["udp", "tcp"]), (rtc.UDP, ["udp", "tcp"])):
        ann = await begun(call, "ann")
        await ann.send(simulate=rtc.SimulateScenario(switch_candidate_protocol=protocol))
        assert protocols(await begun(call, "ann")) == expected


async def test_switch_to_an_unknown_protocol_is_refused(call: Call) -> None:
    ann = await begun(call, "ann")
    number: Any = 7  # proto3 lets any number pass
    await ann.send(simulate=rtc.SimulateScenario(switch_candidate_protocol=number))
    assert [each.reason for each in ann.of("request_response")] == [rtc.RequestResponse.UNSUPPORTED_TYPE]
    assert ann.connection.code is None
    assert protocols(await begun(call, "ann")) == ["udp", "tcp"]


def is_forced(client: Client) -> bool:
    """Whether the client was told to use nothing but TURN."""
    return client.joined.client_configuration.force_relay == models.ENABLED


async def test_who_failed_over_tcp_too_is_sent_to_the_relay_if_there_is_one(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(call.rooms.node), "has_relay", True)
    for forced, expected in (
        (False, ["udp", "tcp"]),
        (False, ["tcp"]),
        (True, ["udp", "tcp"]),
        (False, ["udp", "tcp"]),
    ):
        ann = await begun(call, "ann")
        assert (is_forced(ann), protocols(ann)) == (forced, expected)
        await ann.connect()
        if forced:
            await ann.lose_socket()
            (reconnect,) = (await call.resume(ann)).of("reconnect")
            assert reconnect.client_configuration.force_relay == models.ENABLED
        await ann.fail()


async def test_simulation_of_tls_chooses_the_relay(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(call.rooms.node), "has_relay", True)
    ann = await begun(call, "ann")
    await ann.send(simulate=rtc.SimulateScenario(switch_candidate_protocol=rtc.TLS))
    assert is_forced(await begun(call, "ann"))
    call.now += KEPT_S
    assert not is_forced(await begun(call, "ann"))


class Ann:
    """A participant whose connection fails."""

    room_name, identity, joined_at, active = "room", "ann", 0.0, False

    def __init__(self, way: Way = Way.ANY, sdk: models.ClientInfo.SDK = models.ClientInfo.JS) -> None:
        self.way = way
        self.client = models.ClientInfo(sdk=sdk)


def made(options: IceOptions, has_relay: bool = False) -> Fallbacks:
    return Fallbacks(options, lambda: 1.0, lambda: has_relay)


ALL, NO_TCP, FORBIDDEN = IceOptions(), IceOptions(tcp_port=0), IceOptions(tcp_fallback=False)


@pytest.mark.parametrize(
    ("options", "has_relay", "client", "expected"),
    [
        (ALL, False, Ann(), Way.TCP),
        (ALL, True, Ann(), Way.TCP),
        (ALL, False, Ann(Way.TCP), Way.ANY),
        (ALL, True, Ann(Way.TCP), Way.RELAY),
        (ALL, True, Ann(Way.RELAY), Way.ANY),
        (ALL, False, Ann(sdk=models.ClientInfo.GO), Way.ANY),
        (ALL, True, Ann(sdk=models.ClientInfo.GO), Way.RELAY),
        (FORBIDDEN, False, Ann(), Way.ANY),
        (FORBIDDEN, True, Ann(), Way.RELAY),
        (NO_TCP, False, Ann(), Way.ANY),
        (NO_TCP, True, Ann(), Way.RELAY),
    ],
)
def test_what_comes_after_a_way_that_failed(options: IceOptions, has_relay: bool, client: Ann, expected: Way) -> None:
    fallbacks = made(options, has_relay)
    fallbacks.failed(client)
    assert fallbacks.way("room", "ann") is expected


def test_where_tcp_is_forced_nothing_else_comes_after_it() -> None:
    forced = made(IceOptions(force_tcp=True), has_relay=True)
    forced.failed(Ann(Way.TCP))
    assert forced.way("room", "ann") is Way.TCP
    assert forced.way("room", "anybody") is Way.TCP


def test_a_relay_that_is_named_no_longer_is_not_waited_for() -> None:
    named = [True]
    fallbacks = Fallbacks(ALL, lambda: 1.0, lambda: named[0])
    fallbacks.failed(Ann(Way.TCP))
    assert fallbacks.way("room", "ann") is Way.RELAY
    named[0] = False
    assert fallbacks.way("room", "ann") is Way.ANY


def test_so_many_are_remembered() -> None:
    fallbacks = made(ALL)
    for number in range(MAX_CLIENTS + 1):
        fallbacks.set("room", f"ann{number}", Way.TCP)
    assert len(fallbacks._ways) == MAX_CLIENTS
    assert fallbacks.way("room", "ann0") is Way.ANY
    assert fallbacks.way("room", f"ann{MAX_CLIENTS}") is Way.TCP
