"""How rooms begin and end, whom they count, and the operator's limits on what they take in."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from livekit.protocol import models, rtc
from livekit.protocol.room import CreateRoomRequest

from sfu.parameters import Kind
from signaling.config.configuration import RoomOptions
from signaling.config.options import LimitOptions
from signaling.http.join import JoinError
from signaling.rooms.capacity import BEYOND_LIMITS, LOAD_INTERVAL_S, Load
from tests.signaling.support.call import Call
from tests.signaling.support.fake_engine import played_totals

HELPERS: list[dict[str, Any]] = [
    {"kind": models.ParticipantInfo.AGENT},
    {"kind": models.ParticipantInfo.EGRESS},
    {"grant": {"agent": True}},
    {"grant": {"recorder": True}},
]
"""How tokens say that somebody is no person."""


def configure(call: Call, **changes: Any) -> None:
    call.rooms.renew(replace(call.rooms.node.config, **changes))


def refusal(call: Call, identity: str = "ann", **join: Any) -> tuple[int, str]:
    for check in (call.rooms.validate, call.rooms.admit):
        with pytest.raises(JoinError) as caught:
            check(call.parameters(identity, **join))
    return caught.value.status, caught.value.text


def test_a_join_does_not_create_rooms_where_only_the_api_may(call: Call) -> None:
    configure(call, auto_create=False)
    assert refusal(call) == (404, "requested room does not exist")
    assert refusal(call, grant={"room_create": False})[0] == 404
    call.rooms.validate(call.parameters("ann", {"room_create": True}))
    assert call.rooms.rooms == {}


async def test_a_token_that_may_create_rooms_does_so_anyway(call: Call) -> None:
    configure(call, auto_create=False)
    await call.join("ann", {"room_create": True})
    await call.join("bob")
    assert len(call.room.participants) == 2


async def test_a_room_of_the_api_ends_after_its_own_time_without_members(call: Call) -> None:
    call.rooms.create("hall", RoomOptions(empty_timeout_s=7))
    await call.pass_time(6.9)
    assert "hall" in call.rooms.rooms
    await call.pass_time(0.2)
    assert "hall" not in call.rooms.rooms


@pytest.mark.parametrize("helper", HELPERS)
async def test_who_is_no_person_is_not_counted(call: Call, helper: dict[str, Any]) -> None:
    ann = await call.join("ann")
    await call.join("helper", **helper)
    assert call.room.info.num_participants == 1
    assert len(ann.of("update")) > 0


@pytest.mark.parametrize("helper", HELPERS)
async def test_who_is_no_person_takes_no_place_and_needs_none(call: Call, helper: dict[str, Any]) -> None:
    call.rooms.create("hall", RoomOptions(max_participants=1))
    await call.join("helper", **helper)
    await call.join("ann")
    await call.join("second", **helper)
    assert refusal(call, "bob") == (503, "room is full")
    assert set(call.room.participants) == {"helper", "ann", "second"}


async def test_a_person_that_was_admitted_holds_its_place(call: Call) -> None:
    call.rooms.create("hall", RoomOptions(max_participants=1))
    helper = call.rooms.admit(call.parameters("helper", kind=models.ParticipantInfo.AGENT))
    ann = call.rooms.admit(call.parameters("ann"))
    assert refusal(call, "bob") == (503, "room is full")
    ann.abandon()
    helper.abandon()
    call.rooms.validate(call.parameters("bob"))


@pytest.mark.parametrize("helper", HELPERS)
async def test_who_is_no_person_does_not_keep_a_room_open(call: Call, helper: dict[str, Any]) -> None:
    ann = await call.join("ann")
    agent = await call.join("helper", **helper)
    await ann.send(leave=rtc.LeaveRequest())
    await call.pass_time(19)
    assert agent.connection.code is None
    await call.pass_time(2)
    assert call.rooms.rooms == {}
    (leave,) = agent.of("leave")
    assert (leave.reason, leave.action) == (models.ROOM_CLOSED, rtc.LeaveRequest.DISCONNECT)


@pytest.mark.parametrize("helper", HELPERS)
async def test_who_is_no_person_does_not_end_the_wait_for_the_first(call: Call, helper: dict[str, Any]) -> None:
    call.rooms.create("hall", RoomOptions(empty_timeout_s=100, departure_timeout_s=5))
    agent = await call.join("helper", **helper)
    await agent.send(leave=rtc.LeaveRequest())
    await call.pass_time(99)
    assert "hall" in call.rooms.rooms
    await call.join("helper", **helper)
    await call.pass_time(2)
    assert call.rooms.rooms == {}


async def test_a_room_stays_while_one_person_is_there(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    await bob.connect()
    await call.join("helper", {"agent": True})
    await ann.send(leave=rtc.LeaveRequest())
    await call.pass_time(100)
    assert "bob" in call.room.participants


async def test_a_recorder_has_every_track(call: Call) -> None:
    ann = await call.join("ann")
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=False))
    sid = await ann.publish("mic", "audio")
    for identity, join in (
        ("recorder", {"grant": {"recorder": True}}),
        ("egress", {"kind": models.ParticipantInfo.EGRESS}),
        ("bob", {}),
    ):
        await call.join(identity, **join)
    had = {identity: sid in each.subscriptions.active for identity, each in call.room.participants.items()}
    assert had == {"ann": False, "recorder": True, "egress": True, "bob": False}


async def test_further_subscriptions_wait_until_one_ends(call: Call) -> None:
    configure(call, limits=LimitOptions(video_subscriptions=2, audio_subscriptions=1))
    ann = await call.join("ann")
    videos = [await ann.publish(f"cam{n}", "video") for n in range(4)]
    sounds = [await ann.publish(f"mic{n}", "audio") for n in range(2)]
    bob = await call.join("bob")

    def active() -> list[str]:
        return [sid for sid in (*videos, *sounds) if sid in bob.participant.subscriptions.active]

    assert active() == [*videos[:2], sounds[0]]
    assert call.rooms.node.dropped["subscriptions_beyond_limit"] == 3
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[videos[0], sounds[0]], subscribe=False))
    assert active() == [videos[1], videos[2], sounds[1]]
    ann.participant.publishing._forget(ann.participant.publishing.tracks[videos[1]])
    assert active() == [videos[2], videos[3], sounds[1]]
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[videos[0]], subscribe=True))
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[videos[0]], subscribe=False))
    await bob.send(subscription=rtc.UpdateSubscription(track_sids=[videos[2]], subscribe=False))
    assert active() == [videos[3], sounds[1]]


async def test_nobody_new_is_taken_in_beyond_the_limit_of_tracks(call: Call) -> None:
    configure(call, limits=LimitOptions(tracks=4))  # the played engine forwards three
    ann = await call.join("ann")
    await ann.connect()
    await call.pass_time(LOAD_INTERVAL_S)
    await call.join("bob")
    await ann.publish("mic", "audio")
    await call.pass_time(LOAD_INTERVAL_S)
    assert refusal(call, "eve") == (503, BEYOND_LIMITS)
    call.rooms.validate(call.parameters("ann"))  # whoever is here may come back
    assert call.rooms.node.dropped["joins_beyond_limits"] == 2
    configure(call, limits=LimitOptions())
    call.rooms.validate(call.parameters("eve"))


def test_a_load_is_what_was_received_and_sent_between_two_measurements() -> None:
    traffic: Counter[str] = Counter(bytes_received=1_000)
    load = Load(lambda: played_totals(**traffic), lambda: 4)
    limits = LimitOptions(bytes_per_s=500)
    load.tick(0, limits)
    assert (load.tracks, load.bytes_per_s) == (4 + 3, 0)  # nothing is known of the time before
    traffic.update(bytes_received=600, bytes_sent=600)
    load.tick(1, limits)
    assert load.bytes_per_s == 0
    load.tick(2, limits)
    assert load.bytes_per_s == 600
    assert load.is_beyond(limits)
    assert not load.is_beyond(LimitOptions(bytes_per_s=601))
    assert not load.is_beyond(LimitOptions())
    assert load.is_beyond(LimitOptions(tracks=7))
    assert sum(played_totals().subscriptions.values()) == 3
    assert set(played_totals().subscriptions) == {Kind.AUDIO, Kind.VIDEO}


async def test_texts_are_within_the_operators_limits(call: Call) -> None:
    configure(call, limits=LimitOptions(metadata_bytes=3, attributes_bytes=4, name_bytes=5, room_name_bytes=6))
    ann = await call.join("ann", {"can_update_own_metadata": True})
    refused = [
        rtc.UpdateParticipantMetadata(metadata="four"),
        rtc.UpdateParticipantMetadata(name="sixsix"),
        rtc.UpdateParticipantMetadata(attributes={"key": "va"}),
    ]
    for request in refused:
        await ann.send(update_metadata=request)
    reasons = [response.reason for response in ann.of("request_response")]
    assert reasons == [rtc.RequestResponse.LIMIT_EXCEEDED] * 3
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="abc", name="five5", attributes={"k": "val"}))
    assert (ann.participant.info.metadata, ann.participant.info.name) == ("abc", "five5")
    assert call.rooms.create("sixsix").name == "sixsix"
    with pytest.raises(ValueError, match="at most 6 bytes"):
        call.rooms.create("seven77")


async def test_a_room_is_told_when_a_recording_begins_and_ends(call: Call) -> None:
    ann = await call.join("ann")
    ann.forget()
    recorder = await call.join("recorder", {"hidden": True, "recorder": True})
    assert recorder.joined.room.active_recording
    assert ann.of("room_update")[-1].room.active_recording
    ben = await call.join("ben")
    assert ben.joined.room.active_recording
    ann.forget()
    await call.join("egress", kind=models.ParticipantInfo.EGRESS)
    await recorder.send(leave=rtc.LeaveRequest())
    assert not ann.of("room_update"), "another one still records"
    call.room.remove(call.room.participants["egress"], models.CLIENT_INITIATED)
    assert not ann.of("room_update")[-1].room.active_recording
    call.room.participants["ben"].update("", "", {}, models.ParticipantPermission(recorder=True))
    assert ann.of("room_update")[-1].room.active_recording


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0, 0, None),
        (100, 2_000, (100, 2_000)),
        (100, 0, (100, 10_000)),
        (0, 2_000, (0, 2_000)),
        (3_000, 2_000, (2_000, 2_000)),
        (2**32 - 1, 2**32 - 1, (40_950, 40_950)),
    ],
)
async def test_a_call_says_how_late_viewers_show_video(
    call: Call, least: int, most: int, expected: tuple[int, int] | None
) -> None:
    settings = CreateRoomRequest(name="hall", min_playout_delay=least, max_playout_delay=most)
    call.rooms.create("hall", settings=settings)
    assert call.room.options.playout_delay_ms == expected
    call.rooms.create("hall", settings=CreateRoomRequest(name="hall", empty_timeout=7))
    assert call.room.options.playout_delay_ms == expected, "what is not set stays"
    ann = await call.join("ann")
    await ann.publish("camera", "video")
    bob = await call.join("bob")
    await bob.renegotiate()
    assert {each.playout_delay_ms for _, _, each in call.engine.subscriptions.values()} == {expected}
