"""What a room counts of its participants and their tracks, without asking everybody for each join."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from signaling.rooms.headcount import Headcount, counts_as_person
from tests.counting import calls_of
from tests.signaling.support.call import Call


def counted(call: Call) -> tuple[int, int, int]:
    """Visible people, publishers and tracks, counted one by one."""
    everybody = list(call.room.participants.values())
    visible = [each for each in everybody if not each.hidden]
    return (
        sum(counts_as_person(each) for each in visible),
        sum(each.info.is_publisher for each in visible),
        sum(each.publishing.count for each in everybody),
    )


def told(call: Call) -> tuple[int, int, int]:
    info = call.room.info
    return info.num_participants, info.num_publishers, call.room.track_count


async def test_counts_follow_everything_that_happens_to_participants_and_tracks(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    spy = await call.join("spy", {"hidden": True})
    assert told(call) == counted(call) == (2, 0, 0)
    microphone = await ann.publish("mic", "audio")
    await spy.publish("bug", "audio")
    await bob.send(add_track=rtc.AddTrackRequest(cid="later", type=models.VIDEO, source=models.CAMERA))
    assert told(call) == counted(call) == (2, 1, 3)
    await call.resume(spy, claims=call.parameters("spy", {"hidden": False}).claims)
    assert told(call) == counted(call) == (3, 2, 3)
    await call.resume(ann, claims=call.parameters("ann", {"hidden": True, "can_publish": False}).claims)
    assert microphone not in call.room.tracks
    assert told(call) == counted(call) == (2, 1, 2)
    removed = spy.participant
    await call.join("bob")  # and the one before is sent away, with what it had announced
    assert told(call) == counted(call) == (2, 1, 1)
    for _ in range(2):
        call.room.remove(removed, models.PARTICIPANT_REMOVED)
    assert told(call) == counted(call) == (1, 0, 0)
    await call.join("robot", kind=models.ParticipantInfo.AGENT)
    assert told(call) == counted(call) == (1, 0, 0), "agents are no people"


async def test_tracks_of_a_participant_that_cannot_be_freed_are_not_counted_for_ever(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await call.join("ann")
    for number in range(3):
        await ann.publish(f"mic {number}", "audio")
    assert call.room.track_count == 3

    def fail(track: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(call.room, "track_removed", fail)
    call.room.remove(ann.participant, models.PARTICIPANT_REMOVED)
    assert call.room.track_count == 0


@pytest.mark.parametrize("work", ["validate", "count"])
async def test_a_join_costs_no_more_in_a_larger_room(call: Call, work: str) -> None:
    def cost() -> int:
        assert call.room.info.num_participants > 0  # counts what has changed before
        newest.participant.changed()
        parameters = call.parameters("one more")
        jobs: dict[str, Callable[[], object]] = {
            "validate": lambda: call.rooms.validate(parameters),
            "count": lambda: call.room.info,
        }
        return calls_of(jobs[work])

    newest = await call.join("first")
    alone = cost()
    for number in range(30):
        newest = await call.join(f"guest {number}")
    assert cost() == alone


Change = tuple[int, bool, bool, bool, bool]
"""Which participant, whether it is hidden, whether it publishes, whether it records, whether it leaves."""
CHANGES = st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.booleans(), st.booleans())


@given(st.lists(CHANGES, max_size=40), st.data())
def test_any_order_of_changes_and_counts_gives_the_same_as_counting_everybody(
    changes: list[Change], data: st.DataObject
) -> None:
    present: dict[str, Any] = {}
    headcount = Headcount()
    for number, hidden, publishes, records, leaves in changes:
        sid = f"PA_{number}"
        member = present.setdefault(sid, SimpleNamespace(sid=sid, hidden=False, info=models.ParticipantInfo()))
        member.hidden, member.info.is_publisher, member.info.permission.recorder = hidden, publishes, records
        if leaves:
            headcount.forget(present.pop(sid))
        else:
            headcount.note(member)
        if data.draw(st.booleans()):
            visible = [each for each in present.values() if not each.hidden]
            publishers = sum(each.info.is_publisher for each in visible)
            assert headcount.count() == (sum(map(counts_as_person, visible)), publishers)
            assert headcount.people() == sum(map(counts_as_person, present.values()))
