"""Connection quality: LiveKit's words and marks for the engine's scores, and who is told when."""

from itertools import pairwise

import pytest
from livekit.protocol import models

from sfu.parameters import TransportId
from signaling.rooms.quality import QUALITY_INTERVAL_S, Quality, grade, opinion_score
from tests.signaling.support.call import Call


def test_marks_grow_with_scores() -> None:
    marks = [opinion_score(score) for score in range(20, 101)]
    assert all(worse < better for worse, better in pairwise(marks))
    assert opinion_score(100) == pytest.approx(4.5)
    assert opinion_score(0) == 1


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (100, models.EXCELLENT),
        (80.1, models.EXCELLENT),
        (80, models.GOOD),
        (40.1, models.GOOD),
        (40, models.POOR),
        (30, models.POOR),
        (20.1, models.POOR),
        (20, models.LOST),
    ],
)
def test_words_for_scores(score: float, word: models.ConnectionQuality) -> None:
    assert grade(score) == word


async def test_everybody_is_told_once_and_then_of_changes(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for client in (ann, bob):
        await client.connect()
    call.engine.scored[ann.transport] = 100.0
    await call.pass_time(QUALITY_INTERVAL_S)
    (update,) = bob.of("connection_quality")
    assert {entry.participant_sid: entry.quality for entry in update.updates} == {
        ann.sid: models.EXCELLENT,
        bob.sid: models.EXCELLENT,
    }
    call.engine.scored[ann.transport] = 90.0
    await call.pass_time(QUALITY_INTERVAL_S)
    assert len(bob.of("connection_quality")) == 1
    call.engine.scored[ann.transport] = 35.0
    await call.pass_time(QUALITY_INTERVAL_S)
    update = bob.of("connection_quality")[-1]
    assert [(entry.participant_sid, entry.quality) for entry in update.updates] == [(ann.sid, models.POOR)]
    assert update.updates[0].score == pytest.approx(opinion_score(35.0))


async def test_of_both_connections_the_worse_counts(call: Call) -> None:
    ann = await call.join("ann", single_pc=False)
    await ann.connect()
    first, second = ann.participant.renegotiation.transports
    call.engine.scored |= {first: 95.0, second: 60.0}
    await call.pass_time(QUALITY_INTERVAL_S)
    (entry,) = ann.of("connection_quality")[0].updates
    assert entry.quality == models.GOOD
    assert entry.score == pytest.approx(opinion_score(60.0))


async def test_who_loses_its_media_is_lost(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for client in (ann, bob):
        await client.connect()
    await bob.fail()
    await call.pass_time(QUALITY_INTERVAL_S - 1)
    assert bob.participant.expires_at is not None
    call.rooms._report_quality()
    words = {entry.participant_sid: entry.quality for entry in ann.of("connection_quality")[0].updates}
    assert words == {ann.sid: models.EXCELLENT, bob.sid: models.LOST}


async def test_the_engine_is_told_what_is_muted_now(call: Call) -> None:
    ann = await call.join("ann")
    mic, cam = await ann.publish("mic", "audio"), await ann.publish("cam", "video")
    numbers = {sid: ann.engine_track(sid) for sid in (mic, cam)}
    await ann.send(mute={"sid": mic, "muted": True})
    await call.pass_time(QUALITY_INTERVAL_S)
    assert call.engine.muted == [numbers[mic]]
    await ann.send(mute={"sid": mic, "muted": False})
    await call.pass_time(QUALITY_INTERVAL_S)
    assert call.engine.muted == []


async def test_one_measurement_serves_all_rooms(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    await call.join("ann")
    call.rooms.create("another")
    calls = 0

    def scores(_muted: object) -> dict[TransportId, float]:
        nonlocal calls
        calls += 1
        return {}

    monkeypatch.setattr(call.engine, "scores", scores)
    await call.pass_time(QUALITY_INTERVAL_S)
    assert calls == 1
    await call.pass_time(QUALITY_INTERVAL_S / 2)
    assert calls == 1


async def test_a_hidden_participant_is_told_and_not_told_of(call: Call) -> None:
    ann = await call.join("ann")
    spy = await call.join("spy", {"hidden": True})
    await call.pass_time(QUALITY_INTERVAL_S)
    for client in (ann, spy):
        (update,) = client.of("connection_quality")
        assert [entry.participant_sid for entry in update.updates] == [ann.sid]


async def test_nothing_is_written_for_a_room_whose_quality_stays(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await call.join("ann")
    await ann.connect()
    await call.pass_time(QUALITY_INTERVAL_S)
    ann.forget()
    monkeypatch.setattr(Quality, "info", None)
    await call.pass_time(QUALITY_INTERVAL_S)
    assert call.room.participants, "the periodic work failed"
    assert not ann.kinds()


async def test_newcomer_learns_the_quality_of_all(call: Call) -> None:
    ann = await call.join("ann")
    await call.pass_time(QUALITY_INTERVAL_S)
    bob = await call.join("bob")
    await call.pass_time(QUALITY_INTERVAL_S)
    (update,) = bob.of("connection_quality")
    assert {entry.participant_sid for entry in update.updates} == {ann.sid, bob.sid}
    told = [[entry.participant_sid for entry in update.updates] for update in ann.of("connection_quality")]
    assert told == [[ann.sid], [bob.sid]]
