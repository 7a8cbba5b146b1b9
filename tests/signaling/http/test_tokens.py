"""signaling/http/tokens.py: who may do what, read from JSON Web Tokens."""

import json
import time
from typing import Any

import jwt
import pytest
from jwt.api_jws import PyJWS
from livekit.api import AccessToken, VideoGrants
from livekit.protocol import models

from signaling.config.api_keys import hide
from signaling.config.options import MAX_ATTRIBUTES_BYTES, MAX_METADATA_BYTES
from signaling.http.http_protocol import MAX_REQUEST_HEAD_BYTES
from signaling.http.tokens import (
    CLOCK_LEEWAY_S,
    LARGE_TOKEN_BYTES,
    MAX_TOKEN_BYTES,
    REFRESHED_TOKEN_TTL_S,
    TokenError,
    TokenTooLong,
    create,
    refresh,
    verify,
)

KEYS = hide({"devkey": "secret", "other": "x" * 40})


def sign(claims: dict[str, Any], secret: str = "secret", **header: Any) -> str:
    whole = {"iss": "devkey", "sub": "alice", "exp": int(time.time()) + 86_400} | claims
    return jwt.encode({key: value for key, value in whole.items() if value is not ...}, secret, **header)


def test_a_token_of_the_official_library_is_understood() -> None:
    grants = VideoGrants(room_join=True, room="r", can_publish_sources=["camera", "screen_share_audio"], hidden=True)
    token = AccessToken("devkey", "secret").with_identity("alice").with_name("Alice").with_grants(grants)
    claims = verify(token.with_metadata("m").with_attributes({"a": "1"}).with_kind("agent").to_jwt(), KEYS)
    assert (claims.identity, claims.name, claims.metadata, claims.attributes) == ("alice", "Alice", "m", {"a": "1"})
    assert claims.kind == models.ParticipantInfo.Kind.AGENT
    assert (claims.video.room, claims.video.room_join, claims.video.hidden) == ("r", True, True)
    assert claims.video.can_publish_sources == (models.TrackSource.CAMERA, models.TrackSource.SCREEN_SHARE_AUDIO)
    assert claims.api_key == "devkey"


def test_absent_and_null_grants_mean_the_defaults() -> None:
    for video in ({"roomJoin": True}, {"roomJoin": True, "canPublish": None, "canPublishData": None, "hidden": None}):
        grant = verify(sign({"video": video, "attributes": None, "name": None}), KEYS).video
        assert (grant.can_publish, grant.can_subscribe, grant.can_publish_data) == (True, True, True)
        assert (grant.can_update_own_metadata, grant.hidden, grant.room_admin) == (False, False, False)


def test_data_follows_the_publish_grant_unless_it_is_named() -> None:
    assert not verify(sign({"video": {"canPublish": False}}), KEYS).video.can_publish_data
    assert verify(sign({"video": {"canPublish": False, "canPublishData": True}}), KEYS).video.can_publish_data


def test_a_null_attribute_becomes_empty_and_a_number_becomes_its_text() -> None:
    claims = verify(sign({"attributes": {"room_role": None, "level": 3, "color": "red"}}), KEYS)
    assert claims.attributes == {"room_role": "", "level": "3", "color": "red"}


def test_a_token_without_video_claim_opens_no_room() -> None:
    assert not verify(sign({}), KEYS).video.room_join
    assert not verify(sign({"video": "all"}), KEYS).video.room_join


def test_only_true_grants() -> None:
    grant = verify(sign({"video": {"roomJoin": "yes", "roomAdmin": 1}}), KEYS).video
    assert (grant.room_join, grant.room_admin) == (False, False)


def test_sources_name_what_may_be_published() -> None:
    grant = verify(sign({"video": {"canPublishSources": ["microphone"]}}), KEYS).video
    assert grant.may_publish(models.TrackSource.MICROPHONE)
    assert not grant.may_publish(models.TrackSource.CAMERA)
    assert verify(sign({"video": {"canPublishSources": []}}), KEYS).video.may_publish(models.TrackSource.CAMERA)


def test_an_unknown_source_does_not_open_the_others() -> None:
    grant = verify(sign({"video": {"canPublishSources": ["hologram", 7]}}), KEYS).video
    assert not grant.may_publish(models.TrackSource.CAMERA)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "invalid authorization token"),
        ("a.b.c", "invalid authorization token"),
        ("é" * 100, "invalid authorization token"),
        (sign({"iss": ...}), "no issuer"),
        (sign({"iss": "nobody"}), "invalid API key"),
        (sign({"iss": "other"}), "Signature verification failed"),
        (sign({}, secret="guess"), "Signature verification failed"),
        (sign({}, algorithm="HS384"), "alg"),
        (jwt.encode({"iss": "devkey", "exp": 2**33}, "", algorithm="none"), "alg"),
        (sign({"exp": ...}), "exp"),
        (sign({"exp": int(time.time()) - CLOCK_LEEWAY_S - 5}), "expired"),
        (sign({"exp": "tomorrow"}), "Expiration"),
        (sign({"nbf": int(time.time()) + 86_000}), "not yet valid"),
    ],
    # not the tokens, which have the time in them: all processes of a run must call a test the same
    ids=[
        "empty",
        "no token",
        "no ASCII",
        "no issuer",
        "unknown key",
        "key of another",
        "another secret",
        "another algorithm",
        "unsigned",
        "no expiry",
        "expired",
        "expiry of no number",
        "not yet valid",
    ],
)
def test_a_token_that_proves_nothing_is_refused_with_the_reason(token: str, why: str) -> None:
    with pytest.raises(TokenError, match=why):
        verify(token, KEYS)


def test_clocks_may_differ_by_less_than_the_leeway() -> None:
    now = int(time.time())
    verify(sign({"exp": now - CLOCK_LEEWAY_S // 2}), KEYS)
    verify(sign({"nbf": now + CLOCK_LEEWAY_S // 2}), KEYS)


def test_a_refreshed_token_keeps_claims_and_key() -> None:
    original = sign({"iss": "other", "video": {"room": "r", "roomJoin": True}, "roomPreset": "x"}, secret="x" * 40)
    claims = verify(original, KEYS)
    again = verify(refresh(claims, KEYS), KEYS)
    assert again.api_key == "other"
    assert again.raw["roomPreset"] == "x"
    assert again.video == claims.video
    assert again.identity == "alice"
    assert again.expires_at >= time.time() + REFRESHED_TOKEN_TTL_S - 5


def test_a_refreshed_token_has_what_changed_since() -> None:
    claims = verify(sign({"video": {"room": "r", "roomJoin": True}, "metadata": "old", "name": "Old"}), KEYS)
    permission = models.ParticipantPermission(
        can_subscribe=True, can_publish_sources=[models.TrackSource.CAMERA], hidden=True
    )
    token = refresh(claims, KEYS, name="New", metadata="", attributes={"k": "v"}, permission=permission)
    again = verify(token, KEYS)
    assert (again.name, again.metadata, again.attributes) == ("New", "", {"k": "v"})
    assert (again.video.room, again.video.room_join) == ("r", True)
    assert again.video.permission() == permission


def test_a_refreshed_token_is_not_shorter_lived_than_the_original() -> None:
    later = int(time.time()) + 7200
    claims = verify(sign({"exp": later}), KEYS)
    assert verify(refresh(claims, KEYS), KEYS).expires_at == later


def test_a_key_that_was_withdrawn_signs_nothing() -> None:
    claims = verify(sign({}), KEYS)
    with pytest.raises(TokenError):
        refresh(claims, hide({"other": "x"}))


def test_a_created_token_is_valid() -> None:
    token = create(
        "devkey", KEYS["devkey"], identity="bob", name="Bob", video={"room": "r", "roomJoin": True}, metadata="m"
    )
    claims = verify(token, KEYS)
    assert (claims.identity, claims.name, claims.metadata, claims.video.room) == ("bob", "Bob", "m", "r")


@pytest.mark.parametrize("half", [chr(0xD83D), chr(0xDE00)])
def test_half_a_character_is_replaced_wherever_a_token_has_one(half: str) -> None:
    cut = f"cut {half}"
    video = {"room": cut, "destinationRoom": cut}
    token = sign({"sub": cut, "name": cut, "metadata": cut, "attributes": {cut: cut}, "video": video, "kind": cut})
    claims = verify(token, KEYS)
    whole = "cut \ufffd"
    assert (claims.identity, claims.name, claims.metadata, claims.attributes) == (whole, whole, whole, {whole: whole})
    assert (claims.video.room, claims.video.destination_room) == (whole, whole)
    assert verify(refresh(claims, KEYS), KEYS).name == whole
    assert verify(sign({"name": "\U0001f600"}), KEYS).name == "\U0001f600"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss":"devkey","exp":%d,"name":"cut \xed\xa0\xbd"}',
        '{"iss":"devkey","exp":%d,"name":"cut \\ud83d"}'.encode("utf-16"),
        '{"iss":"devkey","exp":%d,"name":"cut \\ud83d"}'.encode("utf-16-be"),
        '{"iss":"devkey","exp":%d,"name":"cut \\ud83d"}'.encode("utf-32-le"),
    ],
)
def test_half_a_character_is_found_in_every_encoding_that_json_has(payload: bytes) -> None:
    expiry = str(int(time.time()) + 60)
    kind = {b"{": "utf-8", b"\xff": "utf-16-le", b"\0": "utf-16-be"}[payload[:1]]
    kind = "utf-32-le" if payload[1:4] == b"\0\0\0" else kind
    token = PyJWS().encode(payload.replace("%d".encode(kind), expiry.encode(kind)), "secret", "HS256")
    assert verify(token, KEYS).name == "cut \ufffd" * 1


@pytest.mark.parametrize(
    "claims", [b"[]", b'"iss"', b"7", b"\xff", b"{}", b"", b'{"iss":7}', b"[" * 100_000], ids=lambda text: text[:9]
)
def test_claims_that_are_no_object_with_an_issuer_are_refused(claims: bytes) -> None:
    with pytest.raises(TokenError, match="invalid authorization token"):
        verify(PyJWS().encode(claims, "secret", "HS256"), KEYS)


def test_what_is_not_signed_is_not_believed_for_its_issuer_alone() -> None:
    """The issuer is read from the token before anything is verified."""
    header, payload, signature = sign({}).split(".")
    for forged in (f"{header}.{payload}.", f"{header}.{payload}", f"{header}.{payload}!.{signature}", f".{payload}."):
        with pytest.raises(TokenError):
            verify(forged, KEYS)
    with pytest.raises(TokenError):
        verify(f"{header}.{payload}.{signature}.{signature}", KEYS)
    assert verify(f"{header}.{payload}.{signature}", KEYS).api_key == "devkey"


def test_secrets_are_not_shown_by_what_holds_them() -> None:
    assert "x" * 40 not in f"{KEYS} {KEYS!r}"


@pytest.mark.parametrize("text", ["m", "\u00e9", "\u6f22", "\U0001f600"])
def test_the_largest_metadata_of_any_script_fits_into_a_refreshed_token(text: str) -> None:
    metadata = text * (MAX_METADATA_BYTES // len(text.encode()))
    attributes = {"a": text * (MAX_ATTRIBUTES_BYTES // len(text.encode()) - 1)}
    token = refresh(verify(sign({}), KEYS), KEYS, name=text * 32, metadata=metadata, attributes=attributes)
    assert len(token) <= MAX_TOKEN_BYTES
    claims = verify(token, KEYS)
    assert (claims.metadata, claims.attributes) == (metadata, attributes)


def test_a_token_that_could_not_be_brought_back_is_not_signed() -> None:
    with pytest.raises(TokenTooLong):
        refresh(verify(sign({}), KEYS), KEYS, metadata="\x01" * MAX_METADATA_BYTES)


def test_what_is_handed_out_leaves_room_in_a_request() -> None:
    assert MAX_TOKEN_BYTES + 128 * 1024 < MAX_REQUEST_HEAD_BYTES


def test_a_large_token_of_a_stranger_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"metadata": "m" * LARGE_TOKEN_BYTES}
    assert verify(sign(large), KEYS).metadata == large["metadata"]
    assert verify(sign(large | {"iss": "other"}, secret="x" * 40), KEYS).api_key == "other"
    with pytest.raises(TokenError, match="Signature verification failed"):
        verify(sign(large | {"iss": "other"}), KEYS)  # another key's secret

    def read(*_: Any, **__: Any) -> None:
        pytest.fail("it was parsed")

    strangers = (sign(large, secret="guess"), "a" * LARGE_TOKEN_BYTES * 2, ".é" * LARGE_TOKEN_BYTES)
    monkeypatch.setattr(jwt, "decode", read)
    monkeypatch.setattr(json, "loads", read)
    for stranger in strangers:
        with pytest.raises(TokenError, match="Signature verification failed"):
            verify(stranger, KEYS)
