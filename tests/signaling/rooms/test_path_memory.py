"""What is remembered of the paths to participants who left."""

from livekit.protocol import rtc

from signaling.rooms.path_memory import KEPT_S, MAX_PATHS
from tests.signaling.support.call import Call


async def test_who_comes_again_soon_begins_with_what_was_known(call: Call) -> None:
    ann = await call.join("ann")
    downlink = ann.participant.data_transport
    call.engine.known_paths[downlink] = 1_234_567
    await ann.send(leave=rtc.LeaveRequest())
    again = await call.join("ann")
    assert call.engine.begun_with[again.participant.data_transport] == 1_234_567


async def test_who_replaces_itself_begins_with_what_is_known(call: Call) -> None:
    ann = await call.join("ann")
    call.engine.known_paths[ann.participant.data_transport] = 1_234_567
    again = await call.join("ann")
    assert call.engine.begun_with[again.participant.data_transport] == 1_234_567


async def test_others_and_those_who_come_late_begin_anew(call: Call) -> None:
    ann = await call.join("ann")
    call.engine.known_paths[ann.participant.data_transport] = 1_234_567
    await ann.send(leave=rtc.LeaveRequest())
    bob = await call.join("bob")
    assert call.engine.begun_with[bob.participant.data_transport] == 0
    call.now += KEPT_S
    again = await call.join("ann")
    assert call.engine.begun_with[again.participant.data_transport] == 0


async def test_so_many_are_remembered(call: Call) -> None:
    count = MAX_PATHS + 5
    ann = await call.join("ann")
    paths = call.rooms.node.paths
    call.engine.known_paths[ann.participant.data_transport] = 1_234_567
    for number in range(count):
        ann.participant._info.identity = f"ann{number}"
        paths.note(ann.participant)
    ann.participant._info.identity = "ann"
    assert len(paths._known) == MAX_PATHS
    room = ann.participant.room.name
    assert paths.recall(room, "ann0") == 0
    assert paths.recall(room, f"ann{count - 1}") == 1_234_567
    assert paths.recall(room, f"ann{count - 1}") == 0, "once"
