"""Connection quality: the score, and who is told when."""

from itertools import pairwise

import pytest
from livekit.protocol import models

from signaling.rooms.quality import Quality, grade, opinion_score
from signaling.rooms.room import QUALITY_INTERVAL_S
from tests.signaling.support.call import Call


def test_score_falls_with_loss_and_delay() -> None:
    by_loss = [opinion_score(loss, 50) for loss in (0, 0.01, 0.05, 0.1, 0.3, 1)]
    by_delay = [opinion_score(0, delay) for delay in (0, 100, 200, 400, 1000)]
    for scores in (by_loss, by_delay):
        assert all(better > worse for better, worse in pairwise(scores)), scores
        assert all(1 <= score <= 4.5 for score in scores)


def test_words_for_scores() -> None:
    assert grade(opinion_score(0, 50)) == models.EXCELLENT
    assert grade(opinion_score(0.05, 50)) == models.GOOD
    assert grade(opinion_score(0.2, 50)) == models.POOR


async def test_everybody_is_told_once_and_then_of_changes(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    for client in (ann, bob):
        await client.connect()
    sid = await ann.publish("mic", "audio")
    call.engine.lost[ann.engine_track(sid)] = (100, 0)
    await call.pass_time(QUALITY_INTERVAL_S)
    (update,) = bob.of("connection_quality")
    assert {entry.participant_sid: entry.quality for entry in update.updates} == {
        ann.sid: models.EXCELLENT,
        bob.sid: models.EXCELLENT,
    }
    await call.pass_time(QUALITY_INTERVAL_S)
    assert len(bob.of("connection_quality")) == 1
    call.engine.lost[ann.engine_track(sid)] = (150, 50)
    await call.pass_time(QUALITY_INTERVAL_S)
    update = bob.of("connection_quality")[-1]
    assert [(entry.participant_sid, entry.quality) for entry in update.updates] == [(ann.sid, models.POOR)]


async def test_bad_way_down_counts_too(call: Call) -> None:
    ann = await call.join("ann")
    sid = await ann.publish("mic", "audio")
    bob = await call.join("bob")
    await bob.connect()
    subscription = bob.participant.subscriptions.active[sid].id
    assert subscription is not None
    call.engine.fractions[subscription] = (0.3, 100.0)
    await call.pass_time(QUALITY_INTERVAL_S)
    entries = ann.of("connection_quality")[0].updates
    assert {entry.participant_sid: entry.quality for entry in entries}[bob.sid] == models.POOR


async def test_of_several_subscriptions_the_worst_counts(call: Call) -> None:
    ann = await call.join("ann")
    sids = [await ann.publish("mic", "audio"), await ann.publish("cam", "video")]
    bob = await call.join("bob")
    await bob.connect()
    good, bad = (bob.participant.subscriptions.active[sid].id for sid in sids)
    assert good is not None
    assert bad is not None
    call.engine.fractions |= {good: (0.0, 40.0), bad: (0.05, 40.0)}
    await call.pass_time(QUALITY_INTERVAL_S)
    entries = {entry.participant_sid: entry for entry in ann.of("connection_quality")[0].updates}
    assert entries[bob.sid].quality == models.GOOD
    assert entries[bob.sid].score == pytest.approx(opinion_score(0.05, 20))


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
