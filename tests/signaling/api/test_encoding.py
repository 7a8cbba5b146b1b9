"""Requests of API calls as bytes, whatever a caller sends."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol.models import ParticipantPermission
from livekit.protocol.room import CreateRoomRequest, SendDataRequest, UpdateParticipantRequest

from signaling.api.encoding import Encoding, decode
from signaling.api.errors import ApiError

KEYS = ["name", "metadata", "egress", "emptyTimeout", "max_participants", "permission", "data", "kind", "agents", "x"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)
BODIES = st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | VALUES.map(json.dumps).map(str.encode)
REQUESTS = CreateRoomRequest, SendDataRequest, UpdateParticipantRequest, ParticipantPermission


@pytest.mark.parametrize("text", ["Infinity", "-Infinity", "1e400", "9" * 5_000])
def test_a_number_that_is_none_is_malformed(text: str) -> None:
    for field in ("kind", "destinationSids"):
        with pytest.raises(ApiError) as caught:
            decode(f'{{"{field}": {text}}}'.encode(), SendDataRequest(), Encoding.JSON)
        assert caught.value.code == "malformed"


@settings(deadline=None)
@given(BODIES, st.sampled_from(list(Encoding)), st.sampled_from(REQUESTS))
def test_any_body_is_a_request_or_an_api_error(body: bytes, encoding: Encoding, kind: type) -> None:
    request = kind()
    try:
        decode(body, request, encoding)
    except ApiError as error:
        assert error.code in ("malformed", "invalid_argument")
    else:
        request.SerializeToString()
