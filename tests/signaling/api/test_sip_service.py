"""signaling/api/sip_service.py and sip_records.py: trunks and dispatch rules by LiveKit's client."""

from collections import Counter
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from livekit.api import TwirpError
from livekit.protocol import sip
from livekit.protocol.models import ListUpdate, Pagination

from signaling.api import sip_records
from signaling.api.errors import ApiError
from signaling.api.sip_records import Records, normal_number, rule_keys, updated
from tests.signaling.support.api import Api, token

SIP = {"admin": True, "call": True}


async def refusal(call: Any) -> str:
    with pytest.raises(TwirpError) as caught:
        await call
    return caught.value.code


def rule(room: str = "hall", pin: str = "", **fields: Any) -> sip.CreateSIPDispatchRuleRequest:
    direct = sip.SIPDispatchRuleDirect(room_name=room, pin=pin)
    return sip.CreateSIPDispatchRuleRequest(
        dispatch_rule=sip.SIPDispatchRuleInfo(rule=sip.SIPDispatchRule(dispatch_rule_direct=direct), **fields)
    )


def inbound(**fields: Any) -> sip.CreateSIPInboundTrunkRequest:
    return sip.CreateSIPInboundTrunkRequest(trunk=sip.SIPInboundTrunkInfo(**fields))


async def test_dispatch_rules_are_created_listed_updated_and_deleted(api: Api) -> None:
    client = api.client.sip
    first = await client.create_dispatch_rule(rule(pin="1234", trunk_ids=["ST_a"], name="first"))
    second = await client.create_dispatch_rule(rule(pin="5678", attributes={"a": "1", "b": "2"}))
    assert first.sip_dispatch_rule_id.startswith("SDR_")
    listed = await client.list_dispatch_rule(sip.ListSIPDispatchRuleRequest())
    assert list(listed.items) == [first, second]
    listed = await client.list_dispatch_rule(sip.ListSIPDispatchRuleRequest(trunk_ids=["ST_b"]))
    assert list(listed.items) == [second], "one without trunks is for all"
    listed = await client.list_dispatch_rule(
        sip.ListSIPDispatchRuleRequest(dispatch_rule_ids=[second.sip_dispatch_rule_id, "SDR_none"])
    )
    assert list(listed.items) == [second]
    changed = await client.update_dispatch_rule_fields(
        second.sip_dispatch_rule_id, name="two", attributes={"a": "", "c": "3"}, trunk_ids=ListUpdate(add=["ST_c"])
    )
    assert (changed.name, dict(changed.attributes), [*changed.trunk_ids]) == ("two", {"b": "2", "c": "3"}, ["ST_c"])
    assert changed.rule.dispatch_rule_direct.pin == "5678"
    request = sip.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=first.sip_dispatch_rule_id)
    assert await client.delete_dispatch_rule(request) == first
    assert await refusal(client.delete_dispatch_rule(request)) == "not_found"
    listed = await client.list_dispatch_rule(sip.ListSIPDispatchRuleRequest())
    assert list(listed.items) == [changed]


async def test_a_rule_for_the_same_trunk_number_and_pin_exists_already(api: Api) -> None:
    client = api.client.sip
    first = await client.create_dispatch_rule(rule(pin="1", trunk_ids=["ST_a", "ST_b"], numbers=["+33 1"]))
    for again in (
        rule(pin="1", trunk_ids=["ST_b"], numbers=["331"]),
        rule(pin="1", trunk_ids=["ST_a"], numbers=["+331"]),
    ):
        assert await refusal(client.create_dispatch_rule(again)) == "already_exists"
    for other in (rule(pin="2", trunk_ids=["ST_b"], numbers=["331"]), rule(pin="1", numbers=["331"]), rule(pin="1")):
        await client.create_dispatch_rule(other)
    assert len((await client.list_dispatch_rule(sip.ListSIPDispatchRuleRequest())).items) == 4
    # it may be replaced by one that would contradict itself, and its keys are free when it is gone
    direct = sip.SIPDispatchRule(dispatch_rule_direct=sip.SIPDispatchRuleDirect(room_name="attic", pin="1"))
    replacement = sip.SIPDispatchRuleInfo(rule=direct, trunk_ids=["ST_a"], numbers=["+331"])
    await client.update_dispatch_rule(first.sip_dispatch_rule_id, replacement)
    await client.create_dispatch_rule(rule(pin="1", trunk_ids=["ST_b"], numbers=["331"]))
    await client.delete_dispatch_rule(sip.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=first.sip_dispatch_rule_id))
    await client.create_dispatch_rule(rule(pin="1", trunk_ids=["ST_a"], numbers=["331"]))


async def test_a_rule_in_the_older_form_is_read(api: Api) -> None:
    direct = sip.SIPDispatchRule(dispatch_rule_direct=sip.SIPDispatchRuleDirect(room_name="hall", pin="9"))
    request = sip.CreateSIPDispatchRuleRequest(
        rule=direct, trunk_ids=["ST_a"], name="old", attributes={"k": "v"}, hide_phone_number=True
    )
    created = await api.client.sip.create_dispatch_rule(request)
    assert (created.rule, created.name, created.hide_phone_number) == (direct, "old", True)
    assert ([*created.trunk_ids], dict(created.attributes)) == (["ST_a"], {"k": "v"})


async def test_trunks_are_created_listed_updated_and_deleted(api: Api) -> None:
    client = api.client.sip
    first = await client.create_inbound_trunk(inbound(numbers=["+331"], name="in"))
    second = await client.create_outbound_trunk(
        sip.CreateSIPOutboundTrunkRequest(
            trunk=sip.SIPOutboundTrunkInfo(numbers=["+332"], address="sip.example", auth_password="secret")
        )
    )
    assert first.sip_trunk_id.startswith("ST_")
    assert await refusal(client.create_inbound_trunk(inbound(numbers=["331"]))) == "already_exists"
    await client.create_inbound_trunk(inbound(numbers=["331"], allowed_numbers=["+33 (5)"]))
    assert (
        await refusal(client.create_inbound_trunk(inbound(numbers=["331"], allowed_numbers=["335"])))
        == "already_exists"
    )
    listed = await client.list_inbound_trunk(sip.ListSIPInboundTrunkRequest(trunk_ids=[first.sip_trunk_id]))
    assert list(listed.items) == [first]
    listed = await client.list_inbound_trunk(sip.ListSIPInboundTrunkRequest(numbers=["999"]))
    assert not listed.items
    assert list((await client.list_outbound_trunk(sip.ListSIPOutboundTrunkRequest())).items) == [second]
    changed = await client.update_outbound_trunk_fields(
        second.sip_trunk_id, name="out", numbers=ListUpdate(set=["+333"]), metadata="m"
    )
    assert (changed.name, [*changed.numbers], changed.address) == ("out", ["+333"], "sip.example")
    answer = await api.post("SIP/ListSIPTrunk", {}, bearer=token({}, sip=SIP))
    kinds = [each["kind"] for each in answer.json()["items"]]
    assert kinds == ["TRUNK_INBOUND", "TRUNK_INBOUND", "TRUNK_OUTBOUND"]
    for trunk in (first, second):
        gone = await client.delete_trunk(sip.DeleteSIPTrunkRequest(sip_trunk_id=trunk.sip_trunk_id))
        assert gone.sip_trunk_id == trunk.sip_trunk_id
    assert not (await client.list_outbound_trunk(sip.ListSIPOutboundTrunkRequest())).items
    await client.create_inbound_trunk(inbound(numbers=["331"]))


async def test_lists_come_in_pages_in_the_order_of_their_ids(api: Api) -> None:
    client = api.client.sip
    ids = sorted([(await client.create_dispatch_rule(rule(pin=str(pin)))).sip_dispatch_rule_id for pin in range(5)])

    async def page(after: str = "", limit: int = 0, **wanted: Any) -> list[str]:
        asked = sip.ListSIPDispatchRuleRequest(page=Pagination(after_id=after, limit=limit), **wanted)
        return [each.sip_dispatch_rule_id for each in (await client.list_dispatch_rule(asked)).items]

    assert [await page(limit=2), await page(ids[1], 2), await page(ids[3], 2)] == [ids[:2], ids[2:4], ids[4:]]
    assert [await page(), await page(ids[2], -1), await page(ids[4], 2), await page("~")] == [ids, ids[3:], [], []]
    assert await page(ids[0], 2, dispatch_rule_ids=[ids[4], ids[0], ids[2], ids[1]]) == ids[1:3]
    await client.create_dispatch_rule(rule(pin="elsewhere", trunk_ids=["ST_a"]))
    assert await page(limit=2, trunk_ids=["ST_b"]) == ids[:2], "what does not fit takes no place of the page"


async def test_trunks_of_all_kinds_come_in_pages(api: Api) -> None:
    client = api.client.sip
    numbers = ("+331", "+332", "+333")
    incoming = sorted([(await client.create_inbound_trunk(inbound(numbers=[each]))).sip_trunk_id for each in numbers])
    trunks = [sip.SIPOutboundTrunkInfo(numbers=[each], address="sip.example") for each in numbers]
    requests = [sip.CreateSIPOutboundTrunkRequest(trunk=each) for each in trunks]
    outgoing = sorted([(await client.create_outbound_trunk(each)).sip_trunk_id for each in requests])
    both = sorted(incoming + outgoing)
    for name, known in (("Inbound", incoming), ("Outbound", outgoing), ("", both)):
        body = {"page": {"after_id": known[0], "limit": len(known) - 2}}
        answer = await api.post(f"SIP/ListSIP{name}Trunk", body, bearer=token({}, sip=SIP))
        assert [each["sip_trunk_id"] for each in answer.json()["items"]] == known[1:-1]


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("CreateSIPInboundTrunk", {}, "invalid_argument"),
        ("CreateSIPInboundTrunk", {"trunk": {}}, "invalid_argument"),
        ("CreateSIPInboundTrunk", {"trunk": {"numbers": ["1"], "sip_trunk_id": "ST_x"}}, "invalid_argument"),
        ("CreateSIPOutboundTrunk", {"trunk": {"numbers": ["1"]}}, "invalid_argument"),
        ("CreateSIPOutboundTrunk", {"trunk": {"address": "a"}}, "invalid_argument"),
        ("CreateSIPInboundTrunk", {"trunk": {"numbers": ["1"], "metadata": "m" * 65_536}}, "invalid_argument"),
        ("UpdateSIPInboundTrunk", {}, "invalid_argument"),
        ("UpdateSIPInboundTrunk", {"sip_trunk_id": "ST_x"}, "invalid_argument"),
        ("UpdateSIPInboundTrunk", {"sip_trunk_id": "ST_x", "update": {}}, "not_found"),
        ("GetSIPInboundTrunk", {}, "invalid_argument"),
        ("GetSIPInboundTrunk", {"sip_trunk_id": "ST_x"}, "not_found"),
        ("GetSIPOutboundTrunk", {"sip_trunk_id": "ST_x"}, "not_found"),
        ("DeleteSIPTrunk", {}, "invalid_argument"),
        ("CreateSIPDispatchRule", {}, "invalid_argument"),
        ("CreateSIPDispatchRule", {"dispatch_rule": {"sip_dispatch_rule_id": "SDR_x"}}, "invalid_argument"),
        (
            "CreateSIPDispatchRule",
            {"rule": {"dispatch_rule_direct": {}}, "trunk_ids": ["t"] * 5001},
            "invalid_argument",
        ),
        ("UpdateSIPDispatchRule", {"sip_dispatch_rule_id": "SDR_x", "update": {}}, "not_found"),
        ("DeleteSIPDispatchRule", {}, "invalid_argument"),
        ("CreateSIPParticipant", {}, "internal"),
        ("CreateSIPParticipant", {"sip_trunk_id": "ST_x"}, "not_found"),
        ("TransferSIPParticipant", {"room_name": "hall"}, "invalid_argument"),
        ("TransferSIPParticipant", {"room_name": "hall", "participant_identity": "x"}, "not_found"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, name: str, body: dict[str, Any], code: str) -> None:
    bearer = token({"roomAdmin": True, "room": "hall"}, sip=SIP)
    assert (await api.post(f"SIP/{name}", body, bearer=bearer)).json()["code"] == code


async def test_only_who_is_a_telephone_can_be_transferred(api: Api) -> None:
    await api.call.join("ann")
    await api.call.join("phone", attributes={"sip.callID": "SCL_1"})
    bearer = token({"roomAdmin": True, "room": "hall"}, sip=SIP)
    for identity, code in (("ann", "invalid_argument"), ("phone", "internal")):
        body = {"room_name": "hall", "participant_identity": identity}
        assert (await api.post("SIP/TransferSIPParticipant", body, bearer=bearer)).json()["code"] == code


def test_records_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_records, "MAX_RECORDS", 1)
    dropped: Counter[str] = Counter()
    records: Records[sip.SIPDispatchRuleInfo] = Records("rule", rule_keys, dropped)
    records.put("a", rule(pin="1").dispatch_rule)
    records.put("a", rule(pin="2").dispatch_rule)
    with pytest.raises(ApiError) as caught:
        records.put("b", rule(pin="1").dispatch_rule)
    assert (caught.value.code, dropped["sip_records"]) == ("resource_exhausted", 1)
    many = [str(number) for number in range(40)]
    with pytest.raises(ApiError, match="exceed"):
        records.put("a", rule(trunk_ids=many, numbers=many).dispatch_rule)
    assert records.get("a").rule.dispatch_rule_direct.pin == "2", "what is refused changes nothing"


def test_the_bytes_of_records_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: Counter[str] = Counter()
    records: Records[sip.SIPDispatchRuleInfo] = Records("rule", rule_keys, dropped)
    records.put("a", rule(pin="1").dispatch_rule)
    monkeypatch.setattr(sip_records, "MAX_RECORDS_BYTES", 2 * records.get("a").ByteSize())
    records.put("b", rule(pin="2").dispatch_rule)
    with pytest.raises(ApiError) as caught:
        records.put("b", rule(pin="22").dispatch_rule)
    assert (caught.value.code, dropped["sip_records"]) == ("resource_exhausted", 1)
    records.remove("a")
    records.put("b", rule(pin="22").dispatch_rule)


@given(st.text(alphabet="0123456789+ -()", min_size=1))
def test_a_number_has_one_spelling(number: str) -> None:
    normal = normal_number(number)
    assert normal_number(normal) == normal
    assert [each for each in normal if each.isdigit()] == [each for each in number if each.isdigit()]


def test_what_is_no_number_stays_as_it_is() -> None:
    assert normal_number("sip:ann@example") == "sip:ann@example"
    assert normal_number("+33 (0)1-23") == normal_number("33 01 23") == "+330123"


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (ListUpdate(set=["c"]), ["c"]),
        (ListUpdate(clear=True), []),
        (ListUpdate(add=["c", "a"], remove=["b"]), ["a", "c"]),
        (ListUpdate(), None),
        (ListUpdate(clear=True, add=["c"]), None),
        (ListUpdate(set=["c"], remove=["a"]), None),
        (ListUpdate(add=[""]), None),
    ],
)
def test_a_list_is_updated(update: ListUpdate, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(ApiError):
            updated(["a", "b"], update)
    else:
        assert updated(["a", "b"], update) == expected


@pytest.mark.parametrize("seconds", [-(2**63), 2**63 - 1])
async def test_a_record_that_json_cannot_say_is_refused_and_lists_go_on(api: Api, seconds: int) -> None:
    created = Timestamp(seconds=seconds)
    lasting = inbound(numbers=["+1"], max_call_duration=Duration(seconds=seconds))
    for request in (lasting, inbound(numbers=["+1"], created_at=created), rule(created_at=created)):
        name = type(request).DESCRIPTOR.name.removesuffix("Request")
        answer = await api.post(f"SIP/{name}", request, bearer=token(sip=SIP))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    for name in ("ListSIPInboundTrunk", "ListSIPDispatchRule"):
        assert (await api.post(f"SIP/{name}", {}, bearer=token(sip=SIP))).json() == {"items": []}
