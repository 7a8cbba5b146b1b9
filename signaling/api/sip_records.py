"""SIP trunks and dispatch rules as records: kept in memory, found by id, and refused if they contradict another.

What is compared are *keys*: a trunk has one for each pair of a called and a calling number, a rule one for each trunk,
called and calling number with its PIN. An empty text stands for all. Two records of a kind must not share a key.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product
from operator import itemgetter
from typing import Generic, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from livekit.protocol.models import ListUpdate, Pagination
from livekit.protocol.sip import SIPDispatchRuleInfo, SIPInboundTrunkInfo

from signaling.api.errors import ApiError, exceeds, invalid

MAX_RECORDS = 10_000
"""Records of one kind. Further ones, or more bytes, are refused and counted as `sip_records`."""
MAX_RECORD_BYTES, MAX_RECORDS_BYTES = 64 * 1024, 32 * 1024 * 1024
"""Bytes of one record, and of all records of one kind."""
MAX_KEYS = 1_000
"""Keys of one record."""

Key = tuple[str, ...]
Record = TypeVar("Record", bound=Message)

_NUMBER = re.compile(r"\+?[\d\- ()]+")
_SPELLING = str.maketrans("", "", " -()")


def normal_number(number: str) -> str:
    """Return a telephone number in the one spelling by which it is compared; other texts as they are."""
    if not _NUMBER.fullmatch(number):
        return number
    bare = number.translate(_SPELLING)
    return bare if bare.startswith("+") else f"+{bare}"


def trunk_keys(trunk: SIPInboundTrunkInfo) -> set[Key]:
    """Return the keys of an inbound trunk.

    Raises:
        ApiError: there are too many.
    """
    return _keys(_numbers(trunk.numbers), _numbers(trunk.allowed_numbers))


def rule_keys(rule: SIPDispatchRuleInfo) -> set[Key]:
    """Return the keys of a dispatch rule.

    Raises:
        ApiError: there are too many, or the rule does not say where calls go.
    """
    chosen = rule.rule.WhichOneof("rule")
    if chosen is None:
        raise invalid("missing rule")
    pin: str = getattr(rule.rule, chosen).pin
    return _keys({pin}, set(rule.trunk_ids) or {""}, _numbers(rule.inbound_numbers), _numbers(rule.numbers))


def _numbers(numbers: Iterable[str]) -> set[str]:
    return {normal_number(number) for number in numbers} or {""}


def _keys(*parts: set[str]) -> set[Key]:
    count = 1
    for part in parts:
        count *= len(part)
    if count > MAX_KEYS:
        raise exceeds("numbers and trunks exceed limits", MAX_KEYS)
    return set(product(*parts))


def no_keys(record: Message) -> set[Key]:
    """Return no keys: records of this kind never contradict each other."""
    return set()


class Records(Generic[Record]):
    """All records of one kind, oldest first."""

    def __init__(self, what: str, keys: Callable[[Record], set[Key]], dropped: Counter[str]) -> None:
        """Start without records.

        Args:
            what: the kind, as texts of errors name it.
            keys: returns the keys of a record.
            dropped: counts records for which there was no room.
        """
        self._what = what
        self._keys = keys
        self._dropped = dropped
        self._by_id: dict[str, Record] = {}
        self._ids: dict[Key, str] = {}
        self._bytes = 0

    def put(self, record_id: str, record: Record) -> None:
        """Add a record, or replace the one with this id.

        Raises:
            ApiError: `already_exists`: it contradicts another one; it is too long; it has a time or duration that JSON
                cannot say, so that no list with it could be written; there are too many.
        """
        if record.ByteSize() > MAX_RECORD_BYTES:
            raise exceeds(f"{self._what} size exceeds limits", MAX_RECORD_BYTES)
        try:
            json_format.MessageToDict(record)
        except json_format.Error as error:
            raise invalid(f"{self._what}: {error}") from error
        keys = self._keys(record)
        for key in keys:
            if (other := self._ids.get(key, record_id)) != record_id:
                text = f"{self._what} {other!r} has the same trunk, numbers and PIN already"
                raise ApiError("already_exists", text)
        before = self._by_id.get(record_id)
        more = record.ByteSize() - (before.ByteSize() if before is not None else 0)
        self._check_place(0 if before is not None else 1, more)
        if before is not None:
            self._forget_keys(before)
        self._by_id[record_id] = record
        self._bytes += more
        self._ids.update(dict.fromkeys(keys, record_id))

    def _check_place(self, records: int, size: int) -> None:
        """Check that there is room for so many more records, and so many more bytes."""
        if len(self._by_id) + records > MAX_RECORDS or (size > 0 and self._bytes + size > MAX_RECORDS_BYTES):
            self._dropped["sip_records"] += 1
            raise ApiError("resource_exhausted", f"more than {MAX_RECORDS} of {self._what}, or too many bytes of them")

    def get(self, record_id: str) -> Record:
        """Return a record.

        Raises:
            ApiError: `not_found`.
        """
        record = self._by_id.get(record_id)
        if record is None:
            raise ApiError("not_found", f"requested {self._what} does not exist")
        return record

    def remove(self, record_id: str) -> Record | None:
        """Remove a record and return it, if it is there."""
        record = self._by_id.pop(record_id, None)
        if record is not None:
            self._bytes -= record.ByteSize()
            self._forget_keys(record)
        return record

    def find(self, ids: Collection[str] = ()) -> dict[str, Record]:
        """Return the records with these ids, or all if there are no ids, by id. Unknown ids are left out."""
        return {each: self._by_id[each] for each in ids if each in self._by_id} if ids else dict(self._by_id)

    def _forget_keys(self, record: Record) -> None:
        for key in self._keys(record):
            del self._ids[key]


def listed(
    records: Mapping[str, Record], fits: Callable[[Record], bool] | None, page: Pagination | None
) -> Iterator[Record | None]:
    """Yield the records of an answer: None for each that was looked at and does not fit.

    Args:
        records: those that may be listed, by id, in the order in which they are listed without a page.
        fits: tells whether one is wanted; None: all are.
        page: which of those that fit, in the order of their ids; None: all.
    """
    chosen: Iterable[tuple[str, Record]] = records.items()
    left = len(records)
    if page is not None:
        chosen = sorted((each for each in chosen if each[0] > page.after_id), key=itemgetter(0))
        left = page.limit if page.limit > 0 else left
    for _, record in chosen:
        if left == 0:
            return
        if fits is None or fits(record):
            left -= 1
            yield record
        else:
            yield None


def updated(entries: Iterable[str], update: ListUpdate) -> list[str]:
    """Return a list after an update, which clears it, sets it anew, or removes and adds entries.

    Raises:
        ApiError: the update does nothing, does two of these, or has empty entries.
    """
    changes = [*update.set, *update.add, *update.remove]
    if not update.clear and not changes:
        raise invalid("unsupported list update operation")
    if update.clear and changes:
        raise invalid("cannot clear and change the list at the same time")
    if update.set and (update.add or update.remove):
        raise invalid("cannot set and change the list at the same time")
    if "" in changes:
        raise invalid("empty element in the list")
    if update.clear or update.set:
        return list(update.set)
    gone = set(update.remove)
    kept = [entry for entry in entries if entry not in gone]
    return kept + [entry for entry in dict.fromkeys(update.add) if entry not in kept]
