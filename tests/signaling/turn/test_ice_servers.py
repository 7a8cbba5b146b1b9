"""signaling/turn/ice_servers.py: what clients are told, in joins and in resumes."""

import time
from dataclasses import replace

import pytest
from livekit.protocol.rtc import ICEServer
from pydantic import SecretStr

from signaling.config.ice_servers import IceServerOptions, TurnServer
from signaling.turn.allocation.credentials import make_credentials
from signaling.turn.ice_servers import ice_servers
from tests.signaling.support.call import Call

URL = "turn:turn.example.org:3478?transport=udp"
OPTIONS = IceServerOptions(
    stun_urls=("stun:a.example.org", "stun:b.example.org:19302"),
    turn_servers=(
        TurnServer(URL, secret=SecretStr("north"), ttl_s=600),
        TurnServer("turns:b.example.org:443?transport=tcp", username="ann", credential=SecretStr("p4ss")),
    ),
)


def test_no_server_is_told_that_the_operator_did_not_name() -> None:
    assert ice_servers(IceServerOptions(), "PA_a", 0.0) == []


def test_a_secret_makes_credentials_and_fixed_ones_stay_as_they_are() -> None:
    made = make_credentials("north", "PA_a", 600, 1000.0)
    assert ice_servers(OPTIONS, "PA_a", 1000.0) == [
        ICEServer(urls=[URL], username="1600:PA_a", credential=made.password),
        ICEServer(urls=["turns:b.example.org:443?transport=tcp"], username="ann", credential="p4ss"),
        ICEServer(urls=["stun:a.example.org", "stun:b.example.org:19302"]),
    ]


async def test_joins_and_resumes_tell_of_the_servers_of_their_moment(call: Call) -> None:
    assert not (await call.join("ann")).joined.ice_servers
    call.rooms.renew(replace(call.config, ice_servers=OPTIONS))
    bob = await call.join("bob")
    told = list(bob.joined.ice_servers)
    expiry = int(told[0].username.partition(":")[0])
    assert abs(expiry - 600 - time.time()) < 60
    assert told == ice_servers(OPTIONS, bob.sid, expiry - 600)
    await bob.connect()
    await bob.lose_socket()
    call.rooms.renew(replace(call.config, ice_servers=IceServerOptions(turn_servers=OPTIONS.turn_servers[1:])))
    (reconnect,) = (await call.resume(bob)).of("reconnect")
    assert list(reconnect.ice_servers) == told[1:2]


async def test_our_own_server_comes_first_and_knows_who_is_here(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = call.rooms.turn
    here: list[str] = []
    monkeypatch.setattr(turn, "admit", lambda sid, room, owner: here.append(f"{owner[1]} of {owner[0]} in {room}"))
    monkeypatch.setattr(turn, "expel", lambda sid: here.append(f"{sid} left"))
    call.rooms.renew(replace(call.config, ice_servers=OPTIONS))
    assert call.rooms.node.has_relay
    monkeypatch.setattr(turn, "_urls", ("turn:192.0.2.1:3478?transport=udp",))
    ann = await call.join("ann")
    ours, *others = ann.joined.ice_servers
    assert ours.urls == ["turn:192.0.2.1:3478?transport=udp"]
    assert ours.username.endswith(f":{ann.sid}")
    assert ours.username.partition(":")[0] != others[0].username.partition(":")[0]  # each for a time of its own
    assert len(others) == 3
    await ann.connect()
    await ann.lose_socket()
    (reconnect,) = (await call.resume(ann)).of("reconnect")
    assert reconnect.ice_servers[0].urls == ours.urls
    call.rooms.renew(replace(call.config, ice_servers=IceServerOptions()))
    assert call.rooms.node.has_relay
    assert here == [f"ann of devkey in {ann.joined.room.name}"]
    call.rooms.close(ann.joined.room.name)
    assert here[1:] == [f"{ann.sid} left"]
