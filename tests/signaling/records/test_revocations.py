"""signaling/records/revocations.py and nonces.py: what is remembered, and how much of it."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from livekit.protocol import models

from signaling.http.join import JoinError
from signaling.http.tokens import refresh, verify
from signaling.records import nonces, revocations
from signaling.records.nonces import NONCE_BYTES, Nonces
from signaling.records.revocations import Revocations
from tests.signaling.support.api import token
from tests.signaling.support.call import Call, settle


def test_the_latest_time_holds() -> None:
    revoked = Revocations(Counter())
    revoked.revoke("hall", "ann", 100)
    revoked.revoke("hall", "ann", 50)
    assert [revoked.covers("hall", "ann", each) for each in (0, 99, 100)] == [True, True, False]
    assert not revoked.covers("hall", "ben", 0)
    assert not revoked.covers("attic", "ann", 0)


def test_revocations_are_bounded_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOCATIONS", 2)
    dropped: Counter[str] = Counter()
    revoked = Revocations(dropped)
    for identity in ("ann", "ben", "ann", "cleo"):
        revoked.revoke("hall", identity, 100)
    assert [revoked.covers("hall", each, 1) for each in ("ann", "ben", "cleo")] == [True, False, True]
    assert dropped["revocations"] == 1


def test_one_room_displaces_no_revocations_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOCATIONS", 4)
    monkeypatch.setattr(revocations, "MAX_REVOCATIONS_OF_A_ROOM", 2)
    dropped: Counter[str] = Counter()
    revoked = Revocations(dropped)
    revoked.revoke("attic", "zoe", 100)
    for identity in ("ann", "ben", "ann", "cleo", "dan"):
        revoked.revoke("hall", identity, 100)
    assert revoked.covers("attic", "zoe", 1)
    assert [revoked.covers("hall", each, 1) for each in ("ann", "ben", "cleo", "dan")] == [False, False, True, True]
    assert dropped["revocations"] == 2


async def test_a_token_that_is_revoked_while_its_bearer_waits_is_good_for_no_join(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()

    async def wait(_key: tuple[str, str]) -> None:
        await waiting.wait()

    monkeypatch.setattr(call.rooms.node.entrances, "wait", wait)
    ann = await call.join("ann")
    call.rooms.node.revocations.revoke("hall", "ann", 1)
    waiting.set()
    await settle()
    assert ann.kinds() == ["leave"]
    assert ann.of("leave")[0].reason == models.PARTICIPANT_REMOVED
    assert call.room.participants == {}


async def test_a_revoked_token_is_good_for_no_join_and_no_resume(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    call.rooms.node.revocations.revoke("hall", "ann", 1)
    cases: list[dict[str, Any]] = [{}, {"reconnect": True, "participant_sid": ann.sid}]
    for facts in cases:
        with pytest.raises(JoinError) as caught:
            call.rooms.admit(call.parameters("ann", **facts))
        assert caught.value.status == 401
    with pytest.raises(JoinError):
        call.rooms.validate(call.parameters("ann"))
    call.rooms.validate(call.parameters("ben"))


def test_a_refreshed_token_keeps_the_time_from_which_its_original_was_valid(call: Call) -> None:
    keys = call.config.keys
    for nbf in (1_000, 1_000.5):
        claims = verify(token({"room": "hall", "roomJoin": True}, nbf=nbf), keys)
        again = verify(refresh(claims, keys, permission=models.ParticipantPermission()), keys)
        assert (claims.not_before, again.not_before) == (1_000, 1_000)


def test_nonces_are_bounded_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "MAX_NONCES", 2)
    seen = Nonces()
    given = [letter * NONCE_BYTES for letter in (b"a", b"b", b"a", b"c", b"b", b"a")]
    assert [seen.is_repeated(each) for each in (*given, b"", b"")] == [
        False,
        False,
        True,
        False,
        True,
        False,
        False,
        False,
    ]
