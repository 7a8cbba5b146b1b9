"""signaling/api/answers.py: what answers hold of the memory while they are written and sent."""

import asyncio
import contextlib
import socket
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signaling.api import answers
from signaling.api.answers import SENT_AT_ONCE_BYTES, SMALL_ANSWER_BYTES, Answers, _parts
from signaling.api.errors import ApiError
from tests.signaling.support.api import Api, token

LIST = {"roomList": True}
DEADLINE_S = 30.0


def large(api: Api, rooms: int = 4) -> None:
    """Make rooms whose list is larger than what is sent at once."""
    for number in range(rooms):
        api.call.rooms.create(f"room {number}").set_metadata("m" * 200_000)


async def test_a_large_answer_arrives_whole(api: Api) -> None:
    large(api)
    bodies: tuple[bytes | dict[str, Any], ...] = (b"", {})
    for body in bodies:
        answer = await api.post("RoomService/ListRooms", body, LIST)
        assert answer.status_code == 200
        assert answer.content.count(b"m" * 200_000) == 4
        assert int(answer.headers["content-length"]) == len(answer.content)


async def test_answers_are_bounded_together_and_small_ones_always_fit(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    large(api)
    monkeypatch.setattr(answers, "MAX_ANSWERS_BYTES", 100_000)
    answer = await api.post("RoomService/ListRooms", b"", LIST)
    assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
    assert api.call.rooms.node.dropped["api_answers_held"] == 1
    assert (await api.post("RoomService/ListRooms", {"names": ["nowhere"]}, LIST)).status_code == 200


def test_what_is_held_is_free_again_after_the_answer() -> None:
    held = Answers(Counter())
    with held.one() as answer:
        answer.add(bytes(SMALL_ANSWER_BYTES))
        assert held.counted == 0
        answer.add(bytes(5))
        assert held.counted == 5
    assert held.counted == 0
    with pytest.raises(ApiError), held.one() as answer:
        answer.add(bytes(answers.MAX_ANSWERS_BYTES + SMALL_ANSWER_BYTES + 1))
    assert held.counted == 0


async def test_who_does_not_read_its_answer_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    large(api, 60)
    monkeypatch.setattr(answers, "SENDING_TIMEOUT_S", 0.1)
    host, port = api.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        head = f"POST /twirp/livekit.RoomService/ListRooms HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n"
        head += f"Content-Type: application/json\r\nAuthorization: Bearer {token(LIST)}\r\n\r\n{{}}"
        client.sendall(head.encode())
        client.setblocking(False)
        async with asyncio.timeout(DEADLINE_S):
            while not api.call.rooms.node.dropped["api_answers_not_read"]:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
            with contextlib.suppress(ConnectionError):
                while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
                    pass  # what was on its way, then the end
    assert (await api.post("RoomService/ListRooms", {"names": ["nowhere"]}, LIST)).status_code == 200


@given(st.lists(st.integers(0, 200_000), max_size=8))
def test_parts_are_the_pieces_and_none_is_too_large(sizes: list[int]) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    parts = list(_parts(pieces))
    assert b"".join(parts) == b"".join(pieces)
    assert all(0 < len(part) <= SENT_AT_ONCE_BYTES for part in parts)
