"""When the engine's tables are nearly full: who comes too late is told so, and nobody who is there loses anything."""

from collections.abc import Callable

import pytest
from livekit.protocol import models, rtc

from sfu.control.observing.statistics import limits
from sfu.schema.capacities import STREAMS, SUBSCRIPTIONS, TRACKS, TRANSPORTS
from signaling.http.join import JoinError
from signaling.rooms.capacity import MEASURE_INTERVAL_S, Needs
from signaling.rooms.room import Room
from signaling.sdp.offered import MAX_ENCODINGS
from tests.signaling.support.call import Call, Client


def bound(call: Call, **rows: int) -> None:
    """Let the engine have this many rows."""
    limits = call.rooms.node.capacity.limits
    call.rooms.node.capacity.limits = limits._replace(**rows)


async def publisher(call: Call, identity: str, tracks: int) -> Client:
    client = await call.join(identity)
    for number in range(tracks):
        await client.publish(f"{identity}-{number}", "audio")
    return client


async def test_a_join_that_cannot_be_given_what_is_in_the_room_is_refused_before_the_upgrade(call: Call) -> None:
    await publisher(call, "alice", 3)
    bound(call, subscriptions=5)
    bob = await call.join("bob")
    await bob.renegotiate()
    with pytest.raises(JoinError, match="server is full") as refused:
        call.rooms.validate(call.parameters("carol"))
    assert refused.value.status == 503
    with pytest.raises(JoinError):
        call.rooms.admit(call.parameters("carol"))
    assert len(bob.participant.subscriptions.active) == 3
    assert list(call.room.participants) == ["alice", "bob"]
    assert call.room.occupancy.expected == 0


async def test_who_takes_nothing_is_let_in_all_the_same(call: Call) -> None:
    await publisher(call, "alice", 3)
    bound(call, subscriptions=2)
    await call.join("deaf", grant={"can_subscribe": False})
    chooser = await call.join("chooser", auto_subscribe=False)
    sids = list(call.room.tracks)
    await chooser.send(subscription=rtc.UpdateSubscription(track_sids=sids, subscribe=True))
    assert len(chooser.participant.subscriptions.active) == 2
    assert [each.reason for each in chooser.of("request_response")] == [rtc.RequestResponse.LIMIT_EXCEEDED]


async def test_a_publication_that_would_overflow_is_refused_and_nobody_loses_anything(call: Call) -> None:
    alice = await publisher(call, "alice", 1)
    bob = await call.join("bob")
    await bob.renegotiate()
    await call.join("carol")
    bound(call, subscriptions=3)  # two have one each, and what alice publishes next would need two more
    alice.forget()
    request = rtc.AddTrackRequest(cid="more", type=models.AUDIO, source=models.MICROPHONE)
    await alice.send(add_track=request)
    assert [each.reason for each in alice.of("request_response")] == [rtc.RequestResponse.LIMIT_EXCEEDED]
    assert not alice.of("track_published")
    assert len(bob.participant.subscriptions.active) == 1
    assert not bob.of("leave")
    assert not alice.of("leave")


async def test_what_was_announced_and_not_negotiated_yet_counts(call: Call) -> None:
    alice = await call.join("alice")
    await call.join("bob")
    bound(call, subscriptions=2)
    for cid in ("one", "two", "three"):
        await alice.send(add_track=rtc.AddTrackRequest(cid=cid, type=models.AUDIO, source=models.MICROPHONE))
    assert len(alice.of("track_published")) == 2
    assert [each.reason for each in alice.of("request_response")] == [rtc.RequestResponse.LIMIT_EXCEEDED]


async def test_who_was_admitted_and_has_not_joined_yet_counts(call: Call) -> None:
    await publisher(call, "alice", 3)
    bound(call, subscriptions=3)
    call.rooms.admit(call.parameters("bob"))
    call.now += 2 * MEASURE_INTERVAL_S
    with pytest.raises(JoinError):
        call.rooms.admit(call.parameters("carol"))


async def test_peer_connections_count(call: Call) -> None:
    await call.join("alice")
    bound(call, transports=2)
    with pytest.raises(JoinError):
        call.rooms.admit(call.parameters("bob", single_pc=False))
    await call.join("carol")
    call.now += 2 * MEASURE_INTERVAL_S
    with pytest.raises(JoinError):
        call.rooms.admit(call.parameters("dave"))


async def test_layers_and_codecs_count(call: Call) -> None:
    alice = await call.join("alice")
    bound(call, streams=6)
    for cid in ("c", "d"):
        both = [rtc.SimulcastCodec(codec="vp9", cid=cid), rtc.SimulcastCodec(codec="vp8")]
        camera = rtc.AddTrackRequest(cid=cid, type=models.VIDEO, source=models.CAMERA, simulcast_codecs=both)
        await alice.send(add_track=camera)
    assert len(alice.of("track_published")) == 1
    assert len(alice.of("request_response")) == 1


async def test_a_full_reconnect_into_a_full_room_takes_the_place_of_what_it_replaces(call: Call) -> None:
    await publisher(call, "alice", 3)
    bound(call, subscriptions=3, transports=2)
    await call.join("bob")
    call.now += 2 * MEASURE_INTERVAL_S
    again = await call.join("bob")
    assert again.kinds()[0] == "join"
    with pytest.raises(JoinError):
        call.rooms.admit(call.parameters("carol"))


async def test_what_leavers_had_is_given_to_others(call: Call) -> None:
    await publisher(call, "alice", 3)
    bound(call, subscriptions=3)
    bob = await call.join("bob")
    with pytest.raises(JoinError):
        call.rooms.admit(call.parameters("carol"))
    await bob.send(leave=rtc.LeaveRequest())
    call.now += 2 * MEASURE_INTERVAL_S
    carol = await call.join("carol")
    assert carol.kinds()[0] == "join"


async def test_everything_is_counted_anew_seldom(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    await publisher(call, "alice", 1)
    bound(call, subscriptions=0)
    counted = []
    needs: Callable[[Room], Needs] = type(call.room).needs

    def count(room: Room) -> Needs:
        counted.append(room)
        return needs(room)

    monkeypatch.setattr(type(call.room), "needs", count)
    for _ in range(50):
        with pytest.raises(JoinError):
            call.rooms.admit(call.parameters("bob"))
    assert len(counted) == 1


def test_one_media_thread_has_room_for_130_people_with_microphone_and_camera() -> None:
    people = 130
    everybody = Needs(
        transports=2 * people,  # clients with two connections
        tracks=2 * people,
        streams=people * (1 + MAX_ENCODINGS),
        subscriptions=2 * people * (people - 1),
    )
    assert everybody.fits(Needs(**limits(1)))


def test_the_engine_promises_what_its_tables_have() -> None:
    assert limits(1) == {
        "transports": TRANSPORTS,
        "tracks": TRACKS,
        "streams": STREAMS,
        "subscriptions": SUBSCRIPTIONS,
    }
    several = limits(4)
    assert several["subscriptions"] == 4 * SUBSCRIPTIONS * 7 // 8
    assert several["tracks"] == TRACKS  # a track may be mirrored in every thread
