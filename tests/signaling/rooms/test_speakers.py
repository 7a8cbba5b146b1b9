"""Who speaks: changes of levels, told to everybody."""

from livekit.protocol import models, rtc

from signaling.rooms.speakers import MAX_STOPPED, SIMULATED_LEVEL, Speakers
from tests.signaling.support.call import Call

PERIOD_S = 0.4


def told(speakers: Speakers, measured: dict[str, float], now: float = 0.0) -> list[tuple[str, float, bool]]:
    return [(entry.sid, entry.level, entry.active) for entry in speakers.update(measured, now)]


def test_only_changes_are_told_loudest_first() -> None:
    speakers = Speakers()
    assert told(speakers, {"a": 0.3, "b": 0.7}) == [("b", 0.75, True), ("a", 0.375, True)]
    assert told(speakers, {"a": 0.3, "b": 0.7}) == []
    assert told(speakers, {"a": 0.31, "b": 0.2}) == [("b", 0.25, True)]


def test_who_falls_silent_is_told_once() -> None:
    speakers = Speakers()
    told(speakers, {"a": 0.5})
    assert told(speakers, {}) == [("a", 0.0, False)]
    assert told(speakers, {}) == []


def test_simulated_speech_ends_by_itself() -> None:
    speakers = Speakers()
    speakers.simulate("a", until=10.0)
    assert told(speakers, {}, now=5.0) == [("a", 1.0, True)]
    assert SIMULATED_LEVEL <= 1.0
    assert told(speakers, {}, now=11.0) == [("a", 0.0, False)]


async def test_levels_of_tracks_become_levels_of_participants(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    first, second = await ann.publish("mic", "audio"), await ann.publish("mic2", "audio")
    call.engine.levels = [(ann.engine_track(first), 0.25), (ann.engine_track(second), 0.5)]
    await call.pass_time(PERIOD_S)
    for client in (ann, bob):
        (changed,) = client.of("speakers_changed")
        (speaker,) = changed.speakers
        assert (speaker.sid, speaker.level, speaker.active) == (ann.sid, 0.5, True)
    call.engine.levels = []
    await call.pass_time(PERIOD_S)
    assert not bob.of("speakers_changed")[-1].speakers[0].active


async def test_muted_track_does_not_speak(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    await ann.send(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
    call.engine.levels = [(ann.engine_track(sid), 0.5)]
    await call.pass_time(PERIOD_S)
    assert not ann.of("speakers_changed")


async def test_sdk_tests_can_ask_for_a_speaker(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.send(simulate=rtc.SimulateScenario(speaker_update=3))
    await call.pass_time(PERIOD_S)
    assert bob.of("speakers_changed")[0].speakers[0].sid == ann.sid
    await call.pass_time(3)
    assert not bob.of("speakers_changed")[-1].speakers[0].active


def test_what_is_remembered_of_the_silent_is_bounded() -> None:
    speakers = Speakers()
    for number in range(MAX_STOPPED + 5):
        told(speakers, {str(number): 0.5}, now=float(number))
    stopped = [entry.sid for entry in speakers.since(0.0) if not entry.active]
    assert len(stopped) == MAX_STOPPED
    assert stopped[-1] == str(MAX_STOPPED + 3)


async def test_who_leaves_while_speaking_falls_silent_before(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    call.engine.levels = [(ann.engine_track(sid), 0.5)]
    await call.pass_time(PERIOD_S)
    bob.forget()
    call.engine.levels = []
    await ann.send(leave=rtc.LeaveRequest())
    (changed,) = bob.of("speakers_changed")
    assert [(entry.sid, entry.level, entry.active) for entry in changed.speakers] == [(ann.sid, 0.0, False)]
    await call.pass_time(PERIOD_S)
    kinds = bob.kinds()
    assert kinds.index("speakers_changed") < kinds.index("update")
    assert bob.of("update")[0].participants[0].state == models.ParticipantInfo.DISCONNECTED
    assert kinds.count("speakers_changed") == 1


async def test_who_is_hidden_while_speaking_falls_silent_before(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.connect()
    sid = await ann.publish("mic", "audio")
    call.engine.levels = [(ann.engine_track(sid), 0.5)]
    await call.pass_time(PERIOD_S)
    await ann.lose_socket()
    bob.forget()
    await call.resume(ann, grant={"hidden": True})
    (changed,) = bob.of("speakers_changed")
    assert [(entry.sid, entry.active) for entry in changed.speakers] == [(ann.sid, False)]
    kinds = bob.kinds()
    assert kinds.index("speakers_changed") < kinds.index("update")


async def test_who_leaves_silently_makes_no_news_of_speakers(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    await ann.send(leave=rtc.LeaveRequest())
    assert not bob.of("speakers_changed")


async def test_resumed_client_hears_who_stopped_or_left_meanwhile(call: Call) -> None:
    ann, bob, cleo, dora = [await call.join(name) for name in ("ann", "bob", "cleo", "dora")]
    await bob.connect()
    tracks = [(client, await client.publish("mic", "audio")) for client in (ann, cleo, dora)]
    call.engine.levels = [(client.engine_track(sid), 0.5) for client, sid in tracks]
    await call.pass_time(PERIOD_S)
    await bob.lose_socket()
    call.now += 1
    call.engine.levels = call.engine.levels[2:]
    await ann.send(leave=rtc.LeaveRequest())
    await call.pass_time(PERIOD_S)
    again = await call.resume(bob)
    told = {entry.sid: entry.active for entry in again.of("speakers_changed")[0].speakers}
    assert told == {ann.sid: False, cleo.sid: False, dora.sid: True}
    kinds = again.kinds()
    assert kinds.index("speakers_changed") < kinds.index("update"), "which removes who has left"
