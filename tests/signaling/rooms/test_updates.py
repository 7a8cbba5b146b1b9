"""signaling/rooms/updates.py: what a room is told of its participants, and in how many bytes a second."""

import pytest
from livekit.protocol import models, rtc

from signaling import limits
from signaling.allowance import Allowance
from signaling.config.options import MAX_METADATA_BYTES
from signaling.rooms import updates
from tests.signaling.support.call import Call, Client, sdp, settle


def told_of(client: Client, sid: str) -> list[models.ParticipantInfo]:
    return [info for update in client.of("update") for info in update.participants if info.sid == sid]


def told_bytes(client: Client) -> int:
    return sum(update.ByteSize() for update in client.of("update"))


async def test_changes_within_one_turn_are_told_once_and_whole(call: Call) -> None:
    ann, bob = await call.join("ann", {"can_update_own_metadata": True}), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    bob.forget()
    for number in range(20):
        ann.connection.put(rtc.SignalRequest(mute=rtc.MuteTrackRequest(sid=sid, muted=number % 2 == 0)))
        ann.participant.update(f"name {number}", "", {})
        ann.participant.publishing.tracks[sid].info.muted = number % 2 == 0
    await settle(60)
    infos = told_of(bob, ann.sid)
    assert len(infos) < 20
    assert infos[-1].name == "name 19"
    assert [info.version for info in infos] == sorted({info.version for info in infos})


async def test_who_changes_itself_is_told_so_before_the_answer(call: Call) -> None:
    ann, bob = await call.join("ann", {"can_update_own_metadata": True}), await call.join("bob")
    for client in (ann, bob):
        client.forget()
    ann.connection.put(rtc.SignalRequest(update_metadata=rtc.UpdateParticipantMetadata(name="Ann", request_id=1)))
    attributes = rtc.UpdateParticipantMetadata(attributes={"hand": "up"}, request_id=2)
    await ann.send(update_metadata=attributes)
    kinds = [kind for kind in ann.kinds() if kind in ("update", "request_response")]
    assert kinds[0] == "update"
    first, second = (number for number, kind in enumerate(kinds) if kind == "request_response")
    infos = told_of(ann, ann.sid)
    assert [infos[0].name, dict(infos[0].attributes)] == ["Ann", {}]
    assert any(dict(info.attributes) == {"hand": "up"} for info in infos[first : second - 1])
    assert [info.version for info in infos] == sorted(info.version for info in infos)
    assert told_of(bob, ann.sid)[-1] == infos[-1]


async def test_who_changes_itself_is_told_so_once(call: Call) -> None:
    ann, bob = [await call.join(name, {"can_update_own_metadata": True}) for name in ("ann", "bob")]
    for client in (ann, bob):
        client.forget()
    for client in (ann, bob):  # in one turn of the event loop, so that one update tells of both
        client.connection.put(rtc.SignalRequest(update_metadata=rtc.UpdateParticipantMetadata(name="new")))
    await settle()
    for client in (ann, bob):
        assert [[info.name for info in told_of(client, each.sid)] for each in (ann, bob)] == [["new"], ["new"]]
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name="newer"))
    ann.participant.update("newest", "", {})
    ann.participant.changed()
    await settle()
    assert [info.name for info in told_of(ann, ann.sid)] == ["new", "newer", "newest", "newest"]
    versions = [info.version for info in told_of(ann, ann.sid)]
    assert versions == sorted(set(versions)), "what changed after it was told at once is told with the room's"


async def test_a_hidden_participant_is_told_of_its_own_change_once(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True, "hidden": True})
    ann.forget()
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name="new"))
    assert [info.name for info in told_of(ann, ann.sid)] == ["new"]
    ann.participant.changed()
    await settle()
    assert [info.name for info in told_of(ann, ann.sid)] == ["new", "new"]


async def test_what_a_participant_is_told_of_itself_is_bounded_by_the_second(call: Call) -> None:
    ann = await call.join("ann", {"can_update_own_metadata": True})
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * MAX_METADATA_BYTES))
    ann.forget()
    for number in range(40):
        await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name=f"name {number}"))
    assert len(ann.of("request_response")) == 40
    assert call.rooms.node.dropped["own_updates_delayed"] > 0
    assert told_bytes(ann) <= 2 * (limits.UPDATE_BURST_BYTES + MAX_METADATA_BYTES)
    for _ in range(10):
        await call.pass_time(1.0)
    assert told_of(ann, ann.sid)[-1].name == "name 39"
    ann.forget()
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name="at once"))
    assert [kind for kind in ann.kinds() if kind != "refresh_token"][:2] == ["update", "request_response"]


async def test_what_a_participant_makes_the_room_hear_is_bounded_by_the_second(call: Call) -> None:
    ann, bob = await call.join("ann", {"can_update_own_metadata": True}), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    bob.forget()
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * MAX_METADATA_BYTES))
    muted = False
    for _ in range(84):
        muted = not muted
        await ann.send(mute=rtc.MuteTrackRequest(sid=sid, muted=muted))
    assert told_bytes(bob) <= limits.UPDATE_BURST_BYTES + MAX_METADATA_BYTES + 10_000
    assert call.rooms.node.dropped["updates_delayed"] > 0
    told_of(bob, ann.sid)
    seconds = 0
    while told_of(bob, ann.sid)[-1].tracks[0].muted != muted or seconds < 5:
        seconds += 1
        await call.pass_time(1.0)
        assert seconds < 10
    assert told_bytes(bob) <= limits.UPDATE_BURST_BYTES + 2 * MAX_METADATA_BYTES + 10 * limits.MAX_UPDATE_BYTES_PER_S
    assert told_of(bob, ann.sid)[-1].tracks[0].muted == muted, "the newest state comes, however late"


async def test_a_quiet_participant_is_not_held_back_by_another(call: Call) -> None:
    ann, bob = await call.join("ann", {"can_update_own_metadata": True}), await call.join("bob")
    cid = await call.join("cid", {"can_update_own_metadata": True})
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * MAX_METADATA_BYTES))
    for number in range(20):
        await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name=f"name {number}"))
    bob.forget()
    await cid.send(update_metadata=rtc.UpdateParticipantMetadata(name="cid herself"))
    assert [info.name for info in told_of(bob, cid.sid)] == ["cid herself"]
    assert not told_of(bob, ann.sid)


async def test_a_departure_is_told_at_once_and_without_texts_when_the_allowance_is_used_up(call: Call) -> None:
    ann, bob = await call.join("ann", {"can_update_own_metadata": True}), await call.join("bob")
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * MAX_METADATA_BYTES))
    for number in range(20):
        await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name=f"name {number}"))
    bob.forget()
    sid = ann.sid
    await ann.send(leave=rtc.LeaveRequest())
    (info,) = told_of(bob, sid)
    assert (info.state, info.identity) == (models.ParticipantInfo.DISCONNECTED, "ann")
    assert info.ByteSize() < 1_000


async def test_departures_are_remembered_without_texts(call: Call) -> None:
    ann, bob = await call.join("ann", {"can_update_own_metadata": True}), await call.join("bob")
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * 1_000))
    await ann.send(leave=rtc.LeaveRequest())
    ((_, identity, told),) = call.room._departures._left
    assert (identity, models.ParticipantInfo.FromString(told).metadata) == ("ann", "")
    assert bob.connection.code is None


def test_what_others_are_told_without_texts_has_no_tracks_of_any_kind() -> None:
    info = models.ParticipantInfo(
        sid="PA_1",
        identity="ann",
        metadata="m",
        attributes={"k": "v"},
        tracks=[models.TrackInfo(sid="TR_1")],
        data_tracks=[models.DataTrackInfo(sid="DTR_1", name="n" * 256)],
    )
    assert updates.without_texts(info) == models.ParticipantInfo(sid="PA_1", identity="ann")


async def test_an_update_comes_before_the_description_that_goes_out_in_the_same_turn(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    bob.forget()
    ann.participant.changed()
    offer = rtc.SessionDescription(type="offer", sdp=sdp(*bob.sections), id=2)
    bob.participant.renegotiation.answer(offer)
    assert bob.kinds() == ["update", "answer"]
    await settle()
    assert bob.kinds() == ["update", "answer"]


async def test_nobody_is_offered_a_track_before_the_update_that_tells_of_it(call: Call) -> None:
    noisy = [await call.join(f"noisy{number}", {"can_update_own_metadata": True}) for number in range(3)]
    ann, bob = await call.join("ann"), await call.join("bob")
    await bob.connect()
    for client in noisy:
        await client.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * MAX_METADATA_BYTES))
        for number in range(7):
            await client.send(update_metadata=rtc.UpdateParticipantMetadata(name=f"name {number}"))
    assert call.rooms.node.dropped["updates_delayed"] > 0, "the room's allowance is used up"
    bob.forget()
    sid = await ann.publish("mic", "audio")
    await ann.send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    await call.collect()
    assert "update" not in bob.kinds()
    assert sid not in bob.participant.subscriptions.active
    assert "media_sections_requirement" not in bob.kinds()
    late = await call.join("late")
    assert sid in late.participant.subscriptions.active, "its join response has told of the track"
    while not told_of(bob, ann.sid):
        await call.pass_time(1.0)
        assert call.now < 1100
    assert told_of(bob, ann.sid)[-1].tracks[0].sid == sid
    assert sid in bob.participant.subscriptions.active
    await call.collect()
    assert bob.kinds().index("update") < bob.kinds().index("media_sections_requirement")


async def test_a_track_that_ends_before_it_was_told_is_offered_to_nobody(call: Call) -> None:
    ann, bob = await call.join("ann", {"can_update_own_metadata": True}), await call.join("bob")
    await ann.send(update_metadata=rtc.UpdateParticipantMetadata(metadata="m" * MAX_METADATA_BYTES))
    for number in range(10):
        await ann.send(update_metadata=rtc.UpdateParticipantMetadata(name=f"name {number}"))
    sid = await ann.publish("mic", "audio")
    assert sid not in bob.participant.subscriptions.active
    await ann.send(leave=rtc.LeaveRequest())
    await call.pass_time(10.0)
    assert not bob.participant.subscriptions.active
    assert not call.room._untold


def info(sid: str, size: int) -> models.ParticipantInfo:
    return models.ParticipantInfo(sid=sid, metadata="m" * size)


def test_a_message_is_few_participants_and_few_bytes_unless_it_is_one() -> None:
    small = [info(f"PA_{number}", 10) for number in range(limits.MAX_UPDATE_PARTICIPANTS * 2 + 1)]
    assert [len(batch) for batch in updates.batches(small)] == [200, 200, 1]
    large = [info(f"PA_{number}", limits.MAX_UPDATE_BYTES) for number in range(3)]
    assert [len(batch) for batch in updates.batches(large)] == [1, 1, 1]
    assert list(updates.batches([])) == []


@pytest.mark.parametrize("size", [1, 300])
def test_an_allowance_pays_afterwards(size: int) -> None:
    allowance = Allowance(100, 200, 0.0)
    assert allowance.allows(0.0)
    allowance.charge(size)
    assert allowance.allows(0.5) is (size == 1)
    assert allowance.allows(1.5)
