"""signaling/http/join.py: what a client says before its WebSocket is accepted."""

import base64
import gzip
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from signaling.config.api_keys import hide
from signaling.config.options import MAX_ATTRIBUTES_BYTES, MAX_METADATA_BYTES, LimitOptions
from signaling.http.join import (
    MAX_JOIN_REQUEST_BYTES,
    JoinError,
    JoinParameters,
    RequestFacts,
    parse_join,
    unwrap_join_request,
)
from signaling.limits import MAX_DISPATCHES, MAX_JOIN_TRACKS

KEYS = hide({"devkey": "secret"})


def token(video: dict[str, Any] | None = None, **claims: Any) -> str:
    grants = {"roomJoin": True, "room": "r"} if video is None else video
    whole = {"iss": "devkey", "sub": "alice", "exp": int(time.time()) + 86_400, "video": grants} | claims
    return jwt.encode(whole, "secret")


def parse(
    query: dict[str, str], single_pc: bool = False, authorization: str = "", limits: LimitOptions | None = None
) -> JoinParameters:
    return parse_join(RequestFacts(query, authorization, "192.0.2.7", single_pc), KEYS, limits or LimitOptions())


def refusal(query: dict[str, str], single_pc: bool = False, authorization: str = "") -> tuple[int, str]:
    with pytest.raises(JoinError) as caught:
        parse(query, single_pc, authorization)
    return caught.value.status, caught.value.text


def encode(wrapped: rtc.WrappedJoinRequest) -> str:
    return base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()


def wrap(request: rtc.JoinRequest, compress: bool = True, pad: bool = True) -> str:
    body = request.SerializeToString()
    text = encode(
        rtc.WrappedJoinRequest(
            compression=rtc.WrappedJoinRequest.GZIP if compress else rtc.WrappedJoinRequest.NONE,
            join_request=gzip.compress(body) if compress else body,
        )
    )
    return text if pad else text.rstrip("=")


def test_single_parameters_are_read() -> None:
    join = parse(
        {
            "access_token": token(),
            "protocol": "17",
            "client_protocol": "2",
            "sdk": "js",
            "version": "2.21.0",
            "browser": "Firefox",
            "capabilities": "CAP_COMPRESSION_DEFLATE_RAW, CAP_FROM_THE_FUTURE",
            "adaptive_stream": "1",
            "subscriber_allow_pause": "1",
            "auto_subscribe": "0",
            "reconnect": "1",
            "reconnect_reason": "2",
            "sid": "PA_x",
        }
    )
    info = join.client_info
    assert (info.protocol, info.client_protocol, info.sdk, info.version) == (17, 2, models.ClientInfo.JS, "2.21.0")
    assert (info.browser, info.address) == ("Firefox", "192.0.2.7")
    assert list(info.capabilities) == [models.ClientInfo.CAP_COMPRESSION_DEFLATE_RAW]
    assert (join.room, join.single_pc, join.adaptive_stream, join.auto_subscribe) == ("r", False, True, False)
    assert join.settings.allow_pause
    assert (join.reconnect, join.reconnect_reason, join.participant_sid) == (True, 2, "PA_x")
    assert join.publisher_offer is None
    assert join.sync_state is None


def test_a_client_that_says_nothing_subscribes_by_itself() -> None:
    join = parse({"access_token": token()})
    assert (join.auto_subscribe, join.adaptive_stream, join.reconnect) == (True, False, False)
    assert not join.settings.allow_pause


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("pad", [True, False])
def test_a_join_request_is_read_in_every_wrapping(compress: bool, pad: bool) -> None:
    request = rtc.JoinRequest(
        client_info=models.ClientInfo(protocol=18, sdk=models.ClientInfo.PYTHON),
        connection_settings=rtc.ConnectionSettings(adaptive_stream=True),
        publisher_offer=rtc.SessionDescription(type="offer", sdp="v=0\r\n" * 50, id=0),
        add_track_requests=[rtc.AddTrackRequest(cid="c1")],
        sync_state=rtc.SyncState(),
    )
    join = parse({"access_token": token(), "join_request": wrap(request, compress, pad)}, single_pc=True)
    assert join.single_pc
    assert join.client_info.protocol == 18
    assert (join.auto_subscribe, join.adaptive_stream) == (False, True)
    assert join.publisher_offer == request.publisher_offer
    assert [added.cid for added in join.add_track_requests] == ["c1"]
    assert join.sync_state is not None


def test_a_join_request_means_one_peer_connection_on_the_old_path_too() -> None:
    assert parse({"access_token": token(), "join_request": wrap(rtc.JoinRequest())}).single_pc


def test_the_authorization_header_wins_over_the_query() -> None:
    join = parse({"access_token": token(sub="query")}, authorization=f"Bearer {token(sub='header')}")
    assert join.claims.identity == "header"
    assert refusal({"access_token": token()}, authorization="Basic eDp5")[0] == 401
    assert refusal({"access_token": token()}, authorization="Bearer nonsense")[0] == 401


def test_the_room_of_the_token_wins_over_the_query() -> None:
    assert parse({"access_token": token(), "room": "other"}).room == "r"
    assert parse({"access_token": token({"roomJoin": True}), "room": "other"}).room == "other"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({}, 401, "no access token"),
        ({"access_token": "x"}, 401, "invalid authorization token"),
        ({"access_token": token({"room": "r"})}, 401, "permissions denied"),
        ({"access_token": token(sub="")}, 400, "identity cannot be empty"),
        ({"access_token": token({"roomJoin": True})}, 400, "no room name"),
        ({"access_token": token({"roomJoin": True, "room": "é" * 129})}, 400, "room name exceeds"),
        ({"access_token": token(sub="i" * 257)}, 400, "identity exceeds"),
        ({"access_token": token(name="n" * 257)}, 400, "name exceeds"),
        ({"access_token": token(), "attributes": "%%"}, 400, "cannot decode attributes"),
        ({"access_token": token(), "attributes": "WzFd"}, 400, "cannot decode attributes"),
    ],
)
def test_who_may_not_join_is_told_why(query: dict[str, str], status: int, text: str) -> None:
    got_status, got_text = refusal(query)
    assert got_status == status
    assert text in got_text


def test_the_new_path_takes_parameters_in_place_of_a_join_request() -> None:
    join = parse({"access_token": token(), "auto_subscribe": "1"}, single_pc=True)
    assert join.single_pc
    assert join.auto_subscribe


GZIP = rtc.WrappedJoinRequest.GZIP
BOMB = gzip.compress(bytes(MAX_JOIN_REQUEST_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!", "cannot decode wrapped"),
        ("ééé", "cannot decode wrapped"),
        ("AAAA", "cannot decode wrapped"),
        (encode(rtc.WrappedJoinRequest(compression=GZIP, join_request=b"zip")), "cannot decompress"),
        (encode(rtc.WrappedJoinRequest(compression=GZIP, join_request=BOMB)), "too large"),
        (encode(rtc.WrappedJoinRequest(compression=GZIP, join_request=BOMB[:100])), "truncated"),
        (encode(rtc.WrappedJoinRequest(join_request=bytes(MAX_JOIN_REQUEST_BYTES + 1))), "too large"),
        (encode(rtc.WrappedJoinRequest(join_request=b"\xff")), "cannot decode join_request"),
        (encode(rtc.WrappedJoinRequest(compression=9)), "unknown compression"),  # type: ignore[arg-type]
    ],
)
def test_a_join_request_that_cannot_be_read_is_refused(text: str, why: str) -> None:
    with pytest.raises(JoinError, match=why) as caught:
        unwrap_join_request(text)
    assert caught.value.status == 400


def test_too_many_tracks_are_refused() -> None:
    tracks = [rtc.AddTrackRequest()] * (MAX_JOIN_TRACKS + 1)
    query = {"access_token": token(), "join_request": wrap(rtc.JoinRequest(add_track_requests=tracks))}
    assert refusal(query)[0] == 400


def attributes(values: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


OWN = {"roomJoin": True, "room": "r", "canUpdateOwnMetadata": True}


def test_own_attributes_and_metadata_go_over_the_tokens_where_that_is_granted() -> None:
    bearer = token(OWN, metadata="token", attributes={"a": "1", "b": "2"})
    join = parse({"access_token": bearer, "attributes": attributes({"b": "3", "a": "", "c": "4"})})
    assert join.attributes == {"a": "1", "b": "3", "c": "4"}
    assert join.metadata == "token"
    request = rtc.JoinRequest(metadata="mine", participant_attributes={"a": "9"})
    join = parse({"access_token": bearer, "join_request": wrap(request)})
    assert (join.metadata, join.attributes) == ("mine", {"a": "9", "b": "2"})


def test_own_attributes_and_metadata_need_the_grant() -> None:
    assert refusal({"access_token": token(), "attributes": attributes({"a": "1"})})[0] == 401
    assert refusal({"access_token": token(), "join_request": wrap(rtc.JoinRequest(metadata="m"))})[0] == 401


def test_oversized_participant_data_is_refused() -> None:
    metadata = wrap(rtc.JoinRequest(metadata="m" * (MAX_METADATA_BYTES + 1)))
    assert refusal({"access_token": token(OWN), "join_request": metadata})[0] == 400
    large = wrap(rtc.JoinRequest(participant_attributes={"k": "v" * MAX_ATTRIBUTES_BYTES}))
    assert refusal({"access_token": token(OWN), "join_request": large})[0] == 400


NAMES = ("join_request", "attributes", "protocol", "reconnect_reason", "sdk", "room", "sid", "capabilities", "version")


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (LimitOptions(room_name_bytes=1), "room name exceeds 1 bytes"),
        (LimitOptions(identity_bytes=4), "identity exceeds 4 bytes"),
        (LimitOptions(name_bytes=2), "name exceeds 2 bytes"),
        (LimitOptions(metadata_bytes=1), "metadata exceeds 1 bytes"),
        (LimitOptions(attributes_bytes=3), "attributes exceed 3 bytes"),
    ],
)
def test_the_operator_limits_what_a_token_says(limits: LimitOptions, what: str) -> None:
    claims = {"name": "abc", "metadata": "mm", "attributes": {"kk": "vv"}}
    long = token({"roomJoin": True, "room": "rr"}, **claims)
    assert parse({"access_token": long}).room == "rr"
    with pytest.raises(JoinError, match=what) as caught:
        parse({"access_token": long}, limits=limits)
    assert caught.value.status == 400


@given(st.dictionaries(st.sampled_from(NAMES), st.text(st.characters(codec="utf-8"), max_size=60)))
def test_any_query_is_parameters_or_a_join_error(query: dict[str, str]) -> None:
    try:
        parse(query | {"access_token": token(OWN)})
    except JoinError as error:
        assert 400 <= error.status < 500


@given(st.binary(max_size=200), st.booleans())
def test_any_wrapped_bytes_are_a_request_or_a_join_error(body: bytes, compress: bool) -> None:
    wrapped = rtc.WrappedJoinRequest(
        compression=GZIP if compress else rtc.WrappedJoinRequest.NONE,
        join_request=gzip.compress(body) if compress else body,
    )
    for text in (encode(wrapped), base64.urlsafe_b64encode(body).decode()):
        try:
            unwrap_join_request(text)
        except JoinError as error:
            assert error.status == 400


@pytest.mark.parametrize("half", [chr(0xD83D), chr(0xDE00)])
def test_half_a_character_is_replaced_in_token_and_attributes(half: str) -> None:
    cut = f"cut {half}"
    own = base64.urlsafe_b64encode(json.dumps({cut: cut}).encode()).decode()
    video = {"roomJoin": True, "room": cut, "canUpdateOwnMetadata": True}
    join = parse(
        {
            "access_token": token(video, sub=cut, name=cut, metadata=cut, attributes={"from token": cut}),
            "attributes": own,
        }
    )
    whole = "cut \ufffd"
    assert (join.room, join.claims.identity, join.claims.name, join.metadata) == (whole, whole, whole, whole)
    assert join.attributes == {"from token": whole, whole: whole}


def test_a_token_says_how_its_room_is() -> None:
    config = {"emptyTimeout": 5, "max_participants": 3, "agents": [{"agentName": "a"}], "unknown": 1}
    parsed = parse({"access_token": token(roomConfig=config, roomPreset="small")})
    assert parsed.room_config is not None
    assert (parsed.room_config.empty_timeout, parsed.room_config.max_participants) == (5, 3)
    assert parsed.claims.room_preset == "small"
    assert parse({"access_token": token(roomConfig=None)}).room_config is None


@pytest.mark.parametrize(
    "config",
    [
        {"emptyTimeout": "soon"},
        {"metadata": 5},
        {"agents": [None]},
        {"agents": [{"restartPolicy": float("inf")}]},
        {"agents": [{}] * (MAX_DISPATCHES + 1)},
        {"metadata": "m" * (MAX_METADATA_BYTES + 1)},
        {"agents": [{"metadata": "m" * (MAX_METADATA_BYTES + 1)}]},
    ],
)
def test_settings_of_a_room_that_make_no_sense_are_refused(config: dict[str, Any]) -> None:
    status, text = refusal({"access_token": token(roomConfig=config)})
    assert status == 400
    assert "roomConfig" in text
