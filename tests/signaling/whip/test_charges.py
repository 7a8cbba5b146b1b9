"""Who pays for what the sessions of WHIP and WHEP take of the control thread's time."""

from collections.abc import Callable
from typing import Any

import pytest

from signaling.http.shares import Share
from signaling.participants.participant import Participant
from signaling.rooms.room import Room
from signaling.turn.service import TurnService
from signaling.whip.sessions import Sessions
from tests.signaling.support.offers import played, published
from tests.signaling.whip.conftest import Http

WHO = ("devkey", "film")
PARTICIPANT = "signaling.participants.session.Participant"


def slow(http: Http, work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Let a function take some time of the node's clock."""

    def takes(*given: Any, **named: Any) -> Any:
        http.call.now += seconds
        return work(*given, **named)

    return takes


@pytest.fixture
def charged(http: Http, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is charged as joins of the client."""
    seconds: list[float] = []

    def charge(who: tuple[str, str], took: float) -> None:
        assert who == WHO
        seconds.append(took)

    monkeypatch.setattr(http.call.rooms.node.entrances, "charge", charge)
    return seconds


async def test_a_join_is_charged_with_all_that_it_takes(
    http: Http, charged: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PARTICIPANT, slow(http, Participant, 1.0))
    monkeypatch.setattr(Room, "add", slow(http, Room.add, 2.0))
    monkeypatch.setattr(Sessions, "_begin", slow(http, Sessions._begin, 4.0))
    assert (await http.post("/whip/v1", published())).status_code == 201
    assert sum(charged) == pytest.approx(7.0)
    charged.clear()
    assert (await http.post("/whep/v1", played())).status_code == 201
    assert sum(charged) == pytest.approx(7.0)


async def test_a_join_that_fails_is_charged(http: Http, charged: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> str:
        http.call.now += 4.0
        raise RuntimeError

    monkeypatch.setattr(Room, "add", slow(http, Room.add, 2.0))
    monkeypatch.setattr(Sessions, "_begin", fails)
    assert (await http.post("/whip/v1", published())).status_code == 500
    assert sum(charged) == pytest.approx(6.0)
    assert http.call.room.participants == {}
    charged.clear()
    http.call.engine.capacity = 0
    monkeypatch.setattr(PARTICIPANT, slow(http, Participant, 1.0))
    assert (await http.post("/whip/v1", published())).status_code == 503
    assert sum(charged) == pytest.approx(1.0)


async def test_whoever_asks_in_several_ways_has_one_share(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    charged: set[Share] = set()
    monkeypatch.setattr(Share, "spend", lambda share, _: charged.add(share))
    place = (await http.post("/whip/v1", published())).headers["location"]
    bearer = http.bearer(roomAdmin=True)
    assert len(charged) == 1
    assert (await http.patch(place, "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", If_Match="*")).status_code == 204
    assert (await http.client.get("/statistics/hall", headers=bearer)).status_code == 200
    headers = bearer | {"Content-Type": "application/json"}
    call = "/twirp/livekit.RoomService/ListParticipants"
    assert (await http.client.post(call, content=b'{"room": "hall"}', headers=headers)).status_code == 200
    assert len(charged) == 1
    assert (await http.delete(place)).status_code == 200
    assert len(charged) == 1
    assert (await http.client.options("/whip/v1", headers=http.bearer())).status_code == 200
    assert len(charged) == 1
    another = http.bearer("another", roomAdmin=True)
    assert (await http.client.get("/statistics/hall", headers=another)).status_code == 200
    assert len(charged) == 2


async def test_the_end_of_a_session_is_charged(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    place = (await http.post("/whip/v1", published())).headers["location"]
    spent: list[float] = []
    monkeypatch.setattr(Share, "spend", lambda _share, seconds: spent.append(seconds))
    monkeypatch.setattr(Room, "remove", slow(http, Room.remove, 3.0))
    assert (await http.delete(place)).status_code == 200
    assert sum(spent) == pytest.approx(3.0)


async def test_asking_for_ice_servers_is_charged(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[float] = []
    monkeypatch.setattr(Share, "spend", lambda _share, seconds: spent.append(seconds))
    monkeypatch.setattr(TurnService, "guest", slow(http, TurnService.guest, 3.0))
    assert (await http.client.options("/whep/v1", headers=http.bearer())).status_code == 200
    assert sum(spent) == pytest.approx(3.0)
    assert (await http.client.options("/whep/v1")).status_code == 200
    assert sum(spent) == pytest.approx(3.0)
