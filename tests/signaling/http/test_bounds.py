"""signaling/http/bounds.py: whatever is repeated in a request is bounded, and costs no more than the bound allows.

Cost is the number of Python and C functions called, so that a slow machine changes nothing.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.internal.encoder import TagBytes
from google.protobuf.message import Message
from livekit.protocol import rtc

from signaling.http.bounds import MAX_ENTRIES, TooManyEntries, check_join_request, check_request
from signaling.http.connection import BadMessage, decode_request
from signaling.http.http_server import MAX_MESSAGE_BYTES
from signaling.http.join import MAX_JOIN_REQUEST_BYTES
from signaling.limits import MAX_ECHO_BYTES, MAX_JSON_CHARACTERS, MAX_JSON_ENTRIES, MAX_REQUEST_ENTRIES, MAX_TOLD_ERRORS
from signaling.participants import handlers
from tests.counting import calls_of
from tests.signaling.support.call import Call

Path = tuple[FieldDescriptor, ...]
CALLS_PER_ENTRY = 60
"""A subscription to an unknown track, with its error, is 20; an SDP m-section is more, but has no entry here."""
CALLS_OF_A_REFUSAL = 1_000


def repeated_paths(message: Any, way: Path = ()) -> Iterator[Path]:
    for field in message.fields:
        if field.is_repeated:
            yield (*way, field)
        if field.message_type is not None and field.message_type not in [each.message_type for each in way]:
            yield from repeated_paths(field.message_type, (*way, field))


def key_of(field: FieldDescriptor) -> str:
    assert field.containing_type is not None
    return f"{field.containing_type.name}.{field.name}"


REQUESTS = list(repeated_paths(rtc.SignalRequest.DESCRIPTOR))
JOINS = list(repeated_paths(rtc.JoinRequest.DESCRIPTOR))


def name_of(path: Path) -> str:
    return ".".join(field.name for field in path)


def delimited(field: FieldDescriptor, body: bytes) -> bytes:
    length, varint = len(body), b""
    while length > 0x7F:
        varint += bytes((length & 0x7F | 0x80,))
        length >>= 7
    return TagBytes(field.number, 2) + varint + bytes((length,)) + body


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def entry(field: FieldDescriptor, number: int, distinct: bool) -> bytes:
    """One entry of a repeated field, the shortest there is unless it has to be a `distinct` one."""
    text = b"%x" % number
    if is_map(field) and field.message_type is not None:
        by_name = field.message_type.fields_by_name
        return delimited(field, delimited(by_name["key"], text) + delimited(by_name["value"], b"v"))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return delimited(field, text if distinct else b"")
    return delimited(field, b"") if field.message_type is not None else b"\0"


def filled(path: Path, entries: int, distinct: bool = False) -> bytes:
    """A frame with so many entries in the last field of the path, but not more than fit into a frame."""
    *outer, field = path
    room = MAX_MESSAGE_BYTES - 64
    if distinct or is_map(field):
        body = b"".join(islice((entry(field, number, distinct) for number in range(room // 16)), entries))
    else:
        part = entry(field, 0, distinct)
        body = part * min(entries, room // len(part))
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        body = delimited(field, body)
    for each in reversed(outer):
        body = delimited(each, body)
    assert len(body) <= MAX_MESSAGE_BYTES
    return body


@pytest.mark.parametrize("path", REQUESTS + JOINS, ids=name_of)
def test_every_repeated_field_has_a_bound(path: Path) -> None:
    assert 0 < MAX_ENTRIES[key_of(path[-1])] <= MAX_REQUEST_ENTRIES


def test_no_bound_is_for_a_field_that_is_gone() -> None:
    assert {key_of(path[-1]) for path in REQUESTS + JOINS} == MAX_ENTRIES.keys()


@pytest.mark.parametrize("path", REQUESTS, ids=name_of)
async def test_a_frame_full_of_one_field_is_refused_before_anybody_loops_over_it(call: Call, path: Path) -> None:
    ann = await call.join("ann")
    request = rtc.SignalRequest.FromString(filled(path, MAX_MESSAGE_BYTES))
    before = call.rooms.node.dropped["requests_with_too_many_entries"]
    calls = calls_of(lambda: handlers.dispatch(ann.participant, request))
    assert calls <= CALLS_OF_A_REFUSAL
    if path[0].name in handlers.HANDLERS:
        assert ann.of("request_response")[-1].reason == rtc.RequestResponse.LIMIT_EXCEEDED
        assert ann.of("request_response")[-1].ByteSize() <= MAX_ECHO_BYTES
        assert call.rooms.node.dropped["requests_with_too_many_entries"] == before + 1


@pytest.mark.parametrize("path", JOINS, ids=name_of)
def test_a_join_request_full_of_one_field_is_refused_too(path: Path) -> None:
    message = rtc.JoinRequest.FromString(filled(path, MAX_JOIN_REQUEST_BYTES // 16))

    def check() -> None:
        with pytest.raises(TooManyEntries):
            check_join_request(message)

    assert calls_of(check) <= CALLS_OF_A_REFUSAL


@pytest.mark.parametrize("path", REQUESTS, ids=name_of)
async def test_a_request_with_as_many_entries_as_it_may_have_costs_so_many_steps(call: Call, path: Path) -> None:
    ann = await call.join("ann")
    entries = MAX_ENTRIES[key_of(path[-1])]
    request = rtc.SignalRequest.FromString(filled(path, entries, distinct=True))
    calls = calls_of(
        lambda: ann.participant.room.guard(ann.participant, lambda: handlers.dispatch(ann.participant, request))
    )
    assert calls <= CALLS_OF_A_REFUSAL + CALLS_PER_ENTRY * entries
    assert not call.rooms.node.dropped["requests_with_too_many_entries"]


async def test_nested_entries_are_counted_together(call: Call) -> None:
    ann = await call.join("ann")
    entries = rtc.SubscriptionPermission(
        track_permissions=[rtc.TrackPermission(track_sids=["TR_x"] * 100) for _ in range(MAX_REQUEST_ENTRIES // 100)]
    )
    await ann.send(subscription_permission=entries)
    assert ann.of("request_response")[-1].reason == rtc.RequestResponse.LIMIT_EXCEEDED


async def test_a_track_that_is_named_often_is_handled_once(call: Call) -> None:
    ann = await call.join("ann")
    once = rtc.UpdateSubscription(track_sids=["TR_x"], subscribe=True)
    often = rtc.UpdateSubscription(
        track_sids=["TR_x", "", *["TR_x"] * 2_000],
        participant_tracks=[rtc.UpdateSubscription().participant_tracks.add(track_sids=["TR_x", ""])],
        subscribe=True,
    )
    participant = ann.participant
    participant.subscriptions.update(once)
    ann.forget()
    calls = calls_of(lambda: participant.subscriptions.update(once))
    assert calls_of(lambda: participant.subscriptions.update(often)) < calls + 20
    assert [error.track_sid for error in ann.of("subscription_response")] == ["TR_x"] * 2
    settings = rtc.UpdateTrackSettings(track_sids=["TR_x"] * 2_000)
    assert calls_of(lambda: participant.subscriptions.set(settings)) < 50
    assert calls_of(lambda: participant.subscriptions.disable(["TR_x"] * 2_000)) < 50


async def test_so_many_unknown_tracks_are_told_and_all_are_remembered(call: Call) -> None:
    ann, bob = await call.join("ann", auto_subscribe=False), await call.join("bob")
    sids = [f"TR_{number}" for number in range(MAX_TOLD_ERRORS + 50)]
    sid = await bob.publish("cam", "video")
    await ann.send(subscription=rtc.UpdateSubscription(track_sids=[*sids, sid], subscribe=True))
    assert [error.track_sid for error in ann.of("subscription_response")] == sids[:MAX_TOLD_ERRORS]
    assert sid in ann.participant.subscriptions.active


# JSON


def json_text(path: Path, item: str) -> str:
    *outer, field = path
    before = after = ""
    for each in outer:
        before += f'{{"{each.json_name}":' + "[" * each.is_repeated
        after = "]" * each.is_repeated + "}" + after
    first, last = "{}" if is_map(field) else "[]"
    before, after = f'{before}{{"{field.json_name}":{first}', last + "}" + after
    room = MAX_MESSAGE_BYTES - len(before) - len(after)
    items = (item % number if "%" in item else item for number in range(room // (len(item) + 1)))
    return (before + ",".join(items))[: MAX_MESSAGE_BYTES - len(after)].rstrip(",{[") + after


@pytest.mark.parametrize("path", REQUESTS, ids=name_of)
def test_json_full_of_one_field_is_refused_before_it_is_parsed(path: Path) -> None:
    field = path[-1]
    item = '"%07x":""' if is_map(field) else "{}" if field.message_type is not None else '""'
    text = json_text(path, item)
    assert len(text) > MAX_MESSAGE_BYTES * 3 // 4

    def decode() -> None:
        with pytest.raises(BadMessage, match="entries"):
            decode_request(text)

    assert calls_of(decode) <= CALLS_OF_A_REFUSAL


def test_json_with_as_many_entries_as_it_may_have_costs_so_many_steps() -> None:
    text = json.dumps({"subscription": {"participantTracks": [{}] * (MAX_JSON_ENTRIES // 2 - 10)}})
    assert calls_of(lambda: decode_request(text)) <= CALLS_PER_ENTRY * MAX_JSON_ENTRIES


@pytest.mark.parametrize("body", ['"a{b,c[\\"d,', '"\\\\","', "\\\\"])
def test_what_stands_in_a_json_string_is_no_entry(body: str) -> None:
    metadata = body * 50_000
    assert decode_request(json.dumps({"updateMetadata": {"metadata": metadata}})).update_metadata.metadata == metadata


@pytest.mark.parametrize("text", ['"' * 1_000_001, '\\"' * 500_000 + "," * 6_000, '{"a":"' + '\\"' * 500_000])
def test_strings_that_never_end_are_looked_at_once(text: str) -> None:
    with pytest.raises(BadMessage):
        decode_request(text)


def test_json_is_long_for_sdp_and_metadata_only() -> None:
    long = "x" * MAX_JSON_CHARACTERS
    assert decode_request(json.dumps({"offer": {"sdp": long}})).offer.sdp == long
    assert decode_request(json.dumps({"update_metadata": {"metadata": long}})).update_metadata.metadata == long
    with pytest.raises(BadMessage, match="characters"):
        decode_request(json.dumps({"addTrack": {"name": long}}))


def test_a_message_without_repeated_fields_is_not_looked_at() -> None:
    ping: Message = rtc.Ping(timestamp=1)
    assert calls_of(lambda: check_request("ping_req", ping)) <= 4
