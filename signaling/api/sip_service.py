"""LiveKit's SIP service: trunks and dispatch rules are records, and no calls are made yet."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message
from livekit.protocol import sip
from livekit.protocol.models import Pagination

from signaling import identifiers
from signaling.api.encoding import Listing
from signaling.api.errors import ApiError, invalid
from signaling.api.grants import may_call_by_sip, may_manage_sip, may_transfer_by_sip
from signaling.api.registry import Registry, find_participant
from signaling.api.sip_records import (
    Record,
    Records,
    listed,
    no_keys,
    normal_number,
    rule_keys,
    trunk_keys,
    updated,
)
from signaling.api.twirp import Method

NOT_CONNECTED = "sip not connected (redis required)"
"""LiveKit's text where no program makes calls."""
CALL_ID = "sip.callID"
"""The attribute of a participant that is a telephone."""
LISTS = frozenset(("numbers", "allowed_addresses", "allowed_numbers", "trunk_ids"))
"""Fields of an update that change a list; the others replace what was there, but attributes are merged."""

Trunk = TypeVar("Trunk", sip.SIPInboundTrunkInfo, sip.SIPOutboundTrunkInfo)
AnyTrunk = sip.SIPInboundTrunkInfo | sip.SIPOutboundTrunkInfo


class SipService:
    """The calls of the service. The records end with the process."""

    def __init__(self, rooms: Registry) -> None:
        """`rooms` are those in which telephones take part."""
        self._rooms = rooms
        dropped = rooms.node.dropped
        self._inbound: Records[sip.SIPInboundTrunkInfo] = Records("sip trunk", trunk_keys, dropped)
        self._outbound: Records[sip.SIPOutboundTrunkInfo] = Records("sip trunk", no_keys, dropped)
        self._rules: Records[sip.SIPDispatchRuleInfo] = Records("sip dispatch rule", rule_keys, dropped)

    def methods(self) -> Mapping[str, Method]:
        """Return all calls by name."""
        creating = partial(Method, grant=may_manage_sip, creates=True)
        managing = partial(Method, grant=may_manage_sip)
        return {
            "CreateSIPInboundTrunk": creating(sip.CreateSIPInboundTrunkRequest, perform=self.create_inbound_trunk),
            "UpdateSIPInboundTrunk": managing(sip.UpdateSIPInboundTrunkRequest, perform=self.update_inbound_trunk),
            "GetSIPInboundTrunk": managing(sip.GetSIPInboundTrunkRequest, perform=self.get_inbound_trunk),
            "ListSIPInboundTrunk": managing(sip.ListSIPInboundTrunkRequest, perform=self.list_inbound_trunks),
            "CreateSIPOutboundTrunk": creating(sip.CreateSIPOutboundTrunkRequest, perform=self.create_outbound_trunk),
            "UpdateSIPOutboundTrunk": managing(sip.UpdateSIPOutboundTrunkRequest, perform=self.update_outbound_trunk),
            "GetSIPOutboundTrunk": managing(sip.GetSIPOutboundTrunkRequest, perform=self.get_outbound_trunk),
            "ListSIPOutboundTrunk": managing(sip.ListSIPOutboundTrunkRequest, perform=self.list_outbound_trunks),
            "ListSIPTrunk": managing(sip.ListSIPTrunkRequest, perform=self.list_trunks),
            "DeleteSIPTrunk": managing(sip.DeleteSIPTrunkRequest, perform=self.delete_trunk),
            "CreateSIPDispatchRule": creating(sip.CreateSIPDispatchRuleRequest, perform=self.create_rule),
            "UpdateSIPDispatchRule": managing(sip.UpdateSIPDispatchRuleRequest, perform=self.update_rule),
            "ListSIPDispatchRule": managing(sip.ListSIPDispatchRuleRequest, perform=self.list_rules),
            "DeleteSIPDispatchRule": managing(sip.DeleteSIPDispatchRuleRequest, perform=self.delete_rule),
            "CreateSIPParticipant": Method(sip.CreateSIPParticipantRequest, may_call_by_sip, self.call),
            "TransferSIPParticipant": Method(sip.TransferSIPParticipantRequest, may_transfer_by_sip, self.transfer),
        }

    # Trunks.

    def create_inbound_trunk(self, request: sip.CreateSIPInboundTrunkRequest) -> sip.SIPInboundTrunkInfo:
        """Add a trunk by which calls come in."""
        return _create(request, request.trunk, self._inbound, _check_inbound)

    def create_outbound_trunk(self, request: sip.CreateSIPOutboundTrunkRequest) -> sip.SIPOutboundTrunkInfo:
        """Add a trunk by which calls go out."""
        return _create(request, request.trunk, self._outbound, _check_outbound)

    def update_inbound_trunk(self, request: sip.UpdateSIPInboundTrunkRequest) -> sip.SIPInboundTrunkInfo:
        """Replace an inbound trunk, or parts of it."""
        return _update(request, self._inbound, "sip_trunk_id", _check_inbound)

    def update_outbound_trunk(self, request: sip.UpdateSIPOutboundTrunkRequest) -> sip.SIPOutboundTrunkInfo:
        """Replace an outbound trunk, or parts of it."""
        return _update(request, self._outbound, "sip_trunk_id", _check_outbound)

    def get_inbound_trunk(self, request: sip.GetSIPInboundTrunkRequest) -> sip.GetSIPInboundTrunkResponse:
        """Return an inbound trunk."""
        _need(request.sip_trunk_id, "trunk ID")
        return sip.GetSIPInboundTrunkResponse(trunk=self._inbound.get(request.sip_trunk_id))

    def get_outbound_trunk(self, request: sip.GetSIPOutboundTrunkRequest) -> sip.GetSIPOutboundTrunkResponse:
        """Return an outbound trunk."""
        _need(request.sip_trunk_id, "trunk ID")
        return sip.GetSIPOutboundTrunkResponse(trunk=self._outbound.get(request.sip_trunk_id))

    def list_inbound_trunks(self, request: sip.ListSIPInboundTrunkRequest) -> Listing:
        """List inbound trunks, those of certain ids or numbers if some are named."""
        fits = partial(_has_number, frozenset(map(normal_number, request.numbers)))
        found = self._inbound.find(request.trunk_ids)
        return Listing(sip.ListSIPInboundTrunkResponse, listed(found, fits, _page(request)))

    def list_outbound_trunks(self, request: sip.ListSIPOutboundTrunkRequest) -> Listing:
        """List outbound trunks, those of certain ids or numbers if some are named."""
        fits = partial(_has_number, frozenset(map(normal_number, request.numbers)))
        found = self._outbound.find(request.trunk_ids)
        return Listing(sip.ListSIPOutboundTrunkResponse, listed(found, fits, _page(request)))

    def list_trunks(self, request: sip.ListSIPTrunkRequest) -> Listing:
        """List all trunks in the form that clients had before there were two kinds."""
        found: dict[str, AnyTrunk] = {**self._inbound.find(), **self._outbound.find()}
        old = (each and _old_trunk(each) for each in listed(found, None, _page(request)))
        return Listing(sip.ListSIPTrunkResponse, old)

    def delete_trunk(self, request: sip.DeleteSIPTrunkRequest) -> sip.SIPTrunkInfo:
        """Remove a trunk of either kind. LiveKit answers so too if there is none."""
        _need(request.sip_trunk_id, "trunk ID")
        if self._inbound.remove(request.sip_trunk_id) is None:
            self._outbound.remove(request.sip_trunk_id)
        return sip.SIPTrunkInfo(sip_trunk_id=request.sip_trunk_id)

    # Dispatch rules.

    def create_rule(self, request: sip.CreateSIPDispatchRuleRequest) -> sip.SIPDispatchRuleInfo:
        """Add a rule that says to which room a call goes."""
        rule = sip.SIPDispatchRuleInfo()
        if request.HasField("dispatch_rule"):
            rule.CopyFrom(request.dispatch_rule)
            if rule.sip_dispatch_rule_id:
                raise invalid("rule id must not be set")
        else:
            _copy_old_rule(request, rule)
        rule_keys(rule)
        rule.sip_dispatch_rule_id = identifiers.sip_rule_id()
        self._rules.put(rule.sip_dispatch_rule_id, rule)
        return rule

    def update_rule(self, request: sip.UpdateSIPDispatchRuleRequest) -> sip.SIPDispatchRuleInfo:
        """Replace a rule, or parts of it."""
        return _update(request, self._rules, "sip_dispatch_rule_id", rule_keys)

    def list_rules(self, request: sip.ListSIPDispatchRuleRequest) -> Listing:
        """List rules, those of certain ids or for certain trunks if some are named."""
        trunks = frozenset(request.trunk_ids)

        def fits(rule: sip.SIPDispatchRuleInfo) -> bool:
            return not trunks or not rule.trunk_ids or not trunks.isdisjoint(rule.trunk_ids)

        found = self._rules.find(request.dispatch_rule_ids)
        return Listing(sip.ListSIPDispatchRuleResponse, listed(found, fits, _page(request)))

    def delete_rule(self, request: sip.DeleteSIPDispatchRuleRequest) -> sip.SIPDispatchRuleInfo:
        """Remove a rule and return it."""
        _need(request.sip_dispatch_rule_id, "dispatch rule ID")
        rule = self._rules.get(request.sip_dispatch_rule_id)
        self._rules.remove(request.sip_dispatch_rule_id)
        return rule

    # Telephones.

    def call(self, request: sip.CreateSIPParticipantRequest) -> sip.SIPParticipantInfo:
        """Refuse: nobody makes calls."""
        if request.sip_trunk_id:
            self._outbound.get(request.sip_trunk_id)
        raise ApiError("internal", NOT_CONNECTED)

    def transfer(self, request: sip.TransferSIPParticipantRequest) -> sip.TransferSIPParticipantResponse:
        """Refuse: no participant is a telephone."""
        if not request.room_name:
            raise invalid("Missing room name")
        if not request.participant_identity:
            raise invalid("Missing participant identity")
        participant = find_participant(self._rooms, request.room_name, request.participant_identity)
        if CALL_ID not in participant.info.attributes:
            raise invalid("no SIP session associated with participant")
        raise ApiError("internal", NOT_CONNECTED)


def _need(value: str, what: str) -> None:
    if not value:
        raise invalid(f"{what} is required")


def _create(request: Message, wanted: Trunk, records: Records[Trunk], check: Callable[[Trunk], object]) -> Trunk:
    """Add a copy of the trunk of a request, with an id, and return it."""
    if not request.HasField("trunk"):
        raise invalid("missing trunk")
    if wanted.sip_trunk_id:
        raise invalid("trunk id must not be set")
    trunk = type(wanted)()
    trunk.CopyFrom(wanted)
    check(trunk)
    trunk.sip_trunk_id = identifiers.sip_trunk_id()
    records.put(trunk.sip_trunk_id, trunk)
    return trunk


def _check_inbound(trunk: sip.SIPInboundTrunkInfo) -> None:
    if not (trunk.auth_username or trunk.auth_password or trunk.allowed_addresses or trunk.numbers):
        text = "for security, one of the fields must be set: AuthUsername+AuthPassword, AllowedAddresses or Numbers"
        raise invalid(text)


def _check_outbound(trunk: sip.SIPOutboundTrunkInfo) -> None:
    if not trunk.numbers:
        raise invalid("no trunk numbers specified")
    if not trunk.address:
        raise invalid("no outbound address specified")


def _update(request: Any, records: Records[Record], id_field: str, check: Callable[[Record], object]) -> Record:
    """Put a changed copy in the place of a record, and return it."""
    record_id: str = getattr(request, id_field)
    if not record_id:
        raise invalid("id must be set")
    action = request.WhichOneof("action")
    if action is None:
        raise invalid("missing or unsupported update action")
    before = records.get(record_id)
    after = type(before)()
    if action == "replace":
        if getattr(request.replace, id_field) not in ("", record_id):
            raise invalid("the id of the replacement must be empty or that of the update")
        after.CopyFrom(request.replace)
    else:
        after.CopyFrom(before)
        _apply(request.update, after)
    setattr(after, id_field, record_id)
    check(after)
    records.put(record_id, after)
    return after


def _apply(update: Message, record: Any) -> None:
    """Change the fields of a record that an update names."""
    for field, value in update.ListFields():
        if field.name in LISTS:
            entries = updated(getattr(record, field.name), value)
            del getattr(record, field.name)[:]
            getattr(record, field.name).extend(entries)
        elif field.name == "attributes":
            for key, text in value.items():
                record.attributes[key] = text
                if not text:
                    del record.attributes[key]
        elif field.message_type is not None:
            getattr(record, field.name).CopyFrom(value)
        else:
            setattr(record, field.name, value)


def _copy_old_rule(request: sip.CreateSIPDispatchRuleRequest, rule: sip.SIPDispatchRuleInfo) -> None:
    """Copy the fields that rules had in requests before they were messages of their own."""
    for field, value in request.ListFields():
        if field.message_type is not None and not field.is_repeated:
            getattr(rule, field.name).CopyFrom(value)
        elif field.name == "attributes":
            rule.attributes.update(value)
        elif field.is_repeated:
            getattr(rule, field.name).extend(value)
        else:
            setattr(rule, field.name, value)


def _has_number(numbers: frozenset[str], trunk: AnyTrunk) -> bool:
    """Tell whether a trunk is for one of these numbers, or for all. No numbers: everyone is wanted."""
    return not numbers or not trunk.numbers or not numbers.isdisjoint(map(normal_number, trunk.numbers))


def _page(request: Any) -> Pagination | None:
    """Return which part of a list is asked for; None: all of it."""
    return request.page if request.HasField("page") else None


def _old_trunk(trunk: AnyTrunk) -> sip.SIPTrunkInfo:
    return _old_inbound(trunk) if isinstance(trunk, sip.SIPInboundTrunkInfo) else _old_outbound(trunk)


def _old_inbound(trunk: sip.SIPInboundTrunkInfo) -> sip.SIPTrunkInfo:
    return sip.SIPTrunkInfo(
        sip_trunk_id=trunk.sip_trunk_id,
        kind=sip.SIPTrunkInfo.TRUNK_INBOUND,
        name=trunk.name,
        metadata=trunk.metadata,
        outbound_number=next(iter(trunk.numbers), ""),
        inbound_addresses=trunk.allowed_addresses,
        inbound_numbers=trunk.allowed_numbers,
        inbound_username=trunk.auth_username,
        inbound_password=trunk.auth_password,
    )


def _old_outbound(trunk: sip.SIPOutboundTrunkInfo) -> sip.SIPTrunkInfo:
    return sip.SIPTrunkInfo(
        sip_trunk_id=trunk.sip_trunk_id,
        kind=sip.SIPTrunkInfo.TRUNK_OUTBOUND,
        name=trunk.name,
        metadata=trunk.metadata,
        outbound_address=trunk.address,
        transport=trunk.transport,
        outbound_number=next(iter(trunk.numbers), ""),
        outbound_username=trunk.auth_username,
        outbound_password=trunk.auth_password,
    )
