"""Every call of the server API: made by LiveKit's client, and in both encodings."""

import inspect
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message
from livekit.api import LiveKitAPI, TwirpError
from livekit.protocol import agent_dispatch, egress, ingress, models, room, sip

from tests.signaling.support.api import KEY, Api, token
from tests.signaling.support.api_calls import CALLS, EVERYTHING, FIELDS

SERVICES = ("room", "agent_dispatch", "egress", "ingress", "sip")
NOT_CONNECTED = "internal"
HERE: dict[str, Any] = {"room": "hall", "identity": "ann"}
SAME_TWICE = ("Get", "List", "Update")
"""Beginnings of calls that answer the same when they are repeated."""


def public(service: Any) -> set[str]:
    """The calls of a service of LiveKit's client, without the older names of some."""
    methods = inspect.getmembers(service, inspect.iscoroutinefunction)
    return {
        name for name, method in methods if name[0] != "_" and "DeprecationWarning" not in inspect.getsource(method)
    } - {"aclose"}


class Caller:
    """Makes calls by LiveKit's client, and notes which."""

    def __init__(self, client: LiveKitAPI) -> None:
        self._client = client
        self.made: set[str] = set()

    async def code(self, call: str, /, *arguments: Any, **named: Any) -> str:
        """Make a call, such as `room.list_rooms`; return the code of its error, or "ok"."""
        self.made.add(call)
        service, _, method = call.partition(".")
        try:
            await getattr(getattr(self._client, service), method)(*arguments, **named)
        except TwirpError as error:
            return error.code
        return "ok"


async def test_livekits_client_makes_every_call(api: Api) -> None:
    caller = Caller(api.client)
    await _rooms(caller, api)
    await _records(caller)
    await _elsewhere(caller)
    assert caller.made == {f"{name}.{call}" for name in SERVICES for call in public(getattr(api.client, name))}


async def _rooms(caller: Caller, api: Api) -> None:
    code, here = caller.code, HERE
    assert await code("room.create_room", room.CreateRoomRequest(name="hall", metadata="m")) == "ok"
    ann = await api.call.join("ann")
    microphone = await ann.publish("mic", "audio")
    assert await code("room.list_rooms", room.ListRoomsRequest(names=["hall"])) == "ok"
    assert await code("room.update_room_metadata", room.UpdateRoomMetadataRequest(room="hall")) == "ok"
    assert await code("room.list_participants", room.ListParticipantsRequest(room="hall")) == "ok"
    assert await code("room.get_participant", room.RoomParticipantIdentity(**here)) == "ok"
    mute = room.MuteRoomTrackRequest(**here, track_sid=microphone, muted=True)
    assert await code("room.mute_published_track", mute) == "ok"
    assert await code("room.update_participant", room.UpdateParticipantRequest(**here, name="Ann")) == "ok"
    assert await code("room.update_subscriptions", room.UpdateSubscriptionsRequest(**here)) == "ok"
    assert await code("room.send_data", room.SendDataRequest(room="hall", data=b"bell")) == "ok"
    moves = {"move": room.MoveParticipantRequest, "forward": room.ForwardParticipantRequest}
    for name, request in moves.items():
        assert await code(f"room.{name}_participant", request(**here, destination_room="attic")) == "unknown"
    create = agent_dispatch.CreateAgentDispatchRequest(room="hall", agent_name="scribe")
    assert await code("agent_dispatch.create_dispatch", create) == "ok"
    assert await code("agent_dispatch.list_dispatch", "hall") == "ok"
    assert await code("agent_dispatch.get_dispatch", "AD_none", "hall") == "ok"
    assert await code("agent_dispatch.delete_dispatch", "AD_none", "hall") == "not_found"
    assert await code("room.remove_participant", room.RoomParticipantIdentity(**here)) == "ok"
    assert await code("room.delete_room", room.DeleteRoomRequest(room="hall")) == "ok"


async def _records(caller: Caller) -> None:
    code = caller.code
    inbound, outbound = sip.SIPInboundTrunkInfo(numbers=["+1"]), sip.SIPOutboundTrunkInfo(numbers=["+1"], address="x")
    assert await code("sip.create_inbound_trunk", sip.CreateSIPInboundTrunkRequest(trunk=inbound)) == "ok"
    assert await code("sip.create_outbound_trunk", sip.CreateSIPOutboundTrunkRequest(trunk=outbound)) == "ok"
    for kind, trunk in (("inbound", inbound), ("outbound", outbound)):
        assert await code(f"sip.update_{kind}_trunk", "ST_none", trunk) == "not_found"
        assert await code(f"sip.update_{kind}_trunk_fields", "ST_none", name="n") == "not_found"
    assert await code("sip.list_inbound_trunk", sip.ListSIPInboundTrunkRequest()) == "ok"
    assert await code("sip.list_outbound_trunk", sip.ListSIPOutboundTrunkRequest()) == "ok"
    assert await code("sip.delete_trunk", sip.DeleteSIPTrunkRequest(sip_trunk_id="ST_none")) == "ok"
    direct = sip.SIPDispatchRule(dispatch_rule_direct=sip.SIPDispatchRuleDirect(room_name="hall"))
    assert await code("sip.create_dispatch_rule", sip.CreateSIPDispatchRuleRequest(rule=direct)) == "ok"
    assert await code("sip.update_dispatch_rule", "SDR_none", sip.SIPDispatchRuleInfo(rule=direct)) == "not_found"
    assert await code("sip.update_dispatch_rule_fields", "SDR_none", name="n") == "not_found"
    assert await code("sip.list_dispatch_rule", sip.ListSIPDispatchRuleRequest()) == "ok"
    gone = sip.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id="SDR_none")
    assert await code("sip.delete_dispatch_rule", gone) == "not_found"
    assert await code("sip.create_sip_participant", sip.CreateSIPParticipantRequest()) == NOT_CONNECTED
    transfer = sip.TransferSIPParticipantRequest(room_name="hall", participant_identity="phone")
    assert await code("sip.transfer_sip_participant", transfer) == "not_found"


async def _elsewhere(caller: Caller) -> None:
    requests: dict[str, Message] = {
        "egress.start_room_composite_egress": egress.RoomCompositeEgressRequest(room_name="hall"),
        "egress.start_web_egress": egress.WebEgressRequest(),
        "egress.start_participant_egress": egress.ParticipantEgressRequest(),
        "egress.start_track_composite_egress": egress.TrackCompositeEgressRequest(),
        "egress.start_track_egress": egress.TrackEgressRequest(),
        "egress.start_egress": egress.StartEgressRequest(),
        "egress.update_layout": egress.UpdateLayoutRequest(),
        "egress.update_stream": egress.UpdateStreamRequest(),
        "egress.list_egress": egress.ListEgressRequest(),
        "egress.stop_egress": egress.StopEgressRequest(),
        "ingress.create_ingress": ingress.CreateIngressRequest(),
        "ingress.update_ingress": ingress.UpdateIngressRequest(),
        "ingress.list_ingress": ingress.ListIngressRequest(),
        "ingress.delete_ingress": ingress.DeleteIngressRequest(),
    }
    for name, request in requests.items():
        assert await caller.code(name, request) == NOT_CONNECTED, name


async def test_livekits_client_is_told_of_every_call_that_its_key_is_wrong(api: Api) -> None:
    async with LiveKitAPI(api.url, KEY, "another secret") as stranger:
        requests = {
            name: getattr(module, f"{service}Request")()
            for module, name, service in (
                (room, "room.list_rooms", "ListRooms"),
                (egress, "egress.list_egress", "ListEgress"),
                (ingress, "ingress.list_ingress", "ListIngress"),
                (sip, "sip.list_dispatch_rule", "ListSIPDispatchRule"),
            )
        }
        caller = Caller(stranger)
        for name, request in requests.items():
            assert await caller.code(name, request) == "unauthenticated"
        assert await caller.code("agent_dispatch.list_dispatch", "hall") == "unauthenticated"


def _answers() -> dict[str, type[Message]]:
    """Call -> the message of its answer, as LiveKit's services say."""
    files = [module.DESCRIPTOR for module in (room, agent_dispatch, egress, ingress, sip)]
    return {
        f"{service.name}/{method.name}": message_factory.GetMessageClass(method.output_type)
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }


@pytest.mark.parametrize("name", CALLS)
async def test_both_encodings_say_the_same(api: Api, name: str) -> None:
    await api.call.join("ann")
    api.call.rooms.create("")
    body = FIELDS | {"identity": "ann", "destination_identity": "ann", "muted": True, "response_timeout_ms": 1}
    bearer = token(EVERYTHING, sip={"admin": True, "call": True})
    answer = _answers()[name]
    request = _request(name, body)
    in_json = json_format.MessageToDict(request, preserving_proto_field_name=True)
    written = await api.post(name, in_json, bearer=bearer)
    if name.endswith(("DeleteRoom", "RemoveParticipant")):
        await api.call.join("ann")
    packed = await api.post(name, request, bearer=bearer)
    assert written.status_code == packed.status_code
    if written.status_code != 200:
        assert written.json() == packed.json()
        return
    assert (written.headers["content-type"], packed.headers["content-type"]) == (
        "application/json",
        "application/protobuf",
    )
    one, other = json_format.Parse(written.text, answer()), answer.FromString(packed.content)
    assert {field.name for field in answer.DESCRIPTOR.fields if not field.containing_oneof} <= written.json().keys()
    if name.partition("/")[2].startswith(SAME_TWICE):
        assert _steady(one) == _steady(other)


def _request(name: str, body: dict[str, Any]) -> Message:
    """The request of a call with those of the fields that it has."""
    service, _, method = name.partition("/")
    module = {"RoomService": room, "AgentDispatchService": agent_dispatch, "Egress": egress, "Ingress": ingress}
    file = module.get(service, sip).DESCRIPTOR
    kind = message_factory.GetMessageClass(file.services_by_name[service].methods_by_name[method].input_type)
    known = {key: value for key, value in body.items() if key in kind.DESCRIPTOR.fields_by_name}
    return json_format.ParseDict(known, kind())


def _steady(message: Message) -> Message:
    """A message without the number that each change of a participant raises."""
    if isinstance(message, models.ParticipantInfo):
        message.version = 0
    return message
