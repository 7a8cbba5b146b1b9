"""signaling/drops.py: what the log says of counters."""

from collections import Counter
from typing import Any

from structlog.testing import capture_logs

from signaling.drops import DropLog, telling_drops


def drops(logs: list[Any]) -> list[dict[str, int]]:
    return [entry["drops"] for entry in logs if entry["event"] == "dropped"]


def test_a_line_has_what_was_added_since_the_last_one_and_no_more() -> None:
    media, clients = Counter(srtp_auth=3, garbage=0), Counter(malformed_messages=1)
    told = DropLog(lambda: media, lambda: clients)
    with capture_logs() as logs:
        told.tell()
        told.tell()
        media["srtp_auth"] += 2
        clients["updates_delayed"] += 1
        told.tell()
    assert drops(logs) == [{"malformed_messages": 1, "srtp_auth": 3}, {"srtp_auth": 2, "updates_delayed": 1}]


async def test_what_was_not_told_yet_is_told_at_the_end() -> None:
    media = Counter(srtp_auth=3)
    with capture_logs() as logs:
        async with telling_drops(lambda: media):
            assert logs == []
    assert drops(logs) == [{"srtp_auth": 3}]
