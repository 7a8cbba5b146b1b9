"""WHIP over HTTP (RFC 9725): what a publisher posts, what it is answered, and what is refused."""

import asyncio
from typing import Any

import pytest
from livekit.protocol import models

from sfu.events import TransportConnected, TransportFailed
from sfu.parameters import Kind
from signaling.api import bodies
from signaling.config.configuration import RoomOptions
from signaling.participants.participant import JOIN_TIMEOUT_S
from signaling.rooms.events import ParticipantLeft, RoomEvent
from signaling.sdp.parsing import parse
from signaling.sdp.session_description import Direction
from signaling.whip import endpoint, sessions
from tests.signaling.support.call import settle
from tests.signaling.support.offers import (
    contradictory,
    of_a_transport_without_password,
    of_one_track_id,
    offer_of,
    played,
    published,
)
from tests.signaling.whip.conftest import SDP, Http

PATHS = ("/whip/v1", "/whep/v1")


def offer_for(path: str) -> str:
    return published() if path == "/whip/v1" else played()


async def test_a_publisher_is_answered_with_its_session(http: Http) -> None:
    answer = await http.post("/whip/v1", published())
    assert (answer.status_code, answer.headers["content-type"]) == (201, SDP)
    place = answer.headers["location"]
    assert place.startswith("/whip/v1/")
    assert len(place.removeprefix("/whip/v1/")) >= 32
    assert http.participant().sid not in place
    session = parse(answer.text)
    assert session.ice_lite
    assert [session.direction_of(each) for each in session.sections] == [Direction.RECVONLY, Direction.RECVONLY]
    assert [each.mid for each in session.sections] == ["2", "3"]
    ufrag = session.transport_of(session.sections[0]).ufrag
    assert answer.headers["etag"] == f'"{ufrag}"'
    assert session.sections[0].candidates
    video = session.sections[1]
    assert [each.id for each in video.rids] == ["q", "h", "f"]
    assert answer.headers["accept-patch"] == "application/trickle-ice-sdpfrag"


async def test_its_participant_is_one_like_others(http: Http) -> None:
    ann = await http.call.join("ann", publisher_offer=None)
    await http.post("/whip/v1", published())
    await settle()
    (told,) = [each for update in ann.of("update") for each in update.participants if each.tracks][-1:]
    assert (told.identity, told.kind) == ("film", models.ParticipantInfo.STANDARD)
    sources = {track.source: track for track in told.tracks}
    assert set(sources) == {models.MICROPHONE, models.CAMERA}
    camera = sources[models.CAMERA]
    assert camera.simulcast
    assert [(each.quality, each.width) for each in camera.layers] == [
        (models.LOW, 320),
        (models.MEDIUM, 640),
        (models.HIGH, 1280),
    ]
    participant = http.participant()
    (transport,) = participant.renegotiation.transports
    await http.call.emit(TransportConnected(transport))
    assert participant.state == models.ParticipantInfo.ACTIVE
    kinds = sorted(parameters.kind.value for _, parameters in http.call.engine.tracks.values())
    assert kinds == [Kind.AUDIO.value, Kind.VIDEO.value]
    # It was admitted to publish: it is subscribed to nothing.
    assert participant.subscriptions.active == {}
    assert not participant.subscriptions.takes_all


async def test_a_screen_may_be_published_where_only_that_is_allowed(http: Http) -> None:
    bearer = http.bearer(canPublishSources=["screen_share", "screen_share_audio"])
    refused = await http.post("/whip/v1", published(), **bearer)
    assert refused.status_code == 403
    assert "film" not in http.call.room.participants
    accepted = await http.post("/whip/v1?source=screen_share", published(), **bearer)
    assert accepted.status_code == 201
    sources = {track.info.source for track in http.participant().publishing.tracks.values()}
    assert sources == {models.SCREEN_SHARE, models.SCREEN_SHARE_AUDIO}


@pytest.mark.parametrize(
    ("query", "size", "lowest"), [("", (1280, 720), 320), ("?width=1080&height=1920", (1080, 1920), 270)]
)
async def test_a_picture_has_the_size_that_the_client_names(
    http: Http, query: str, size: tuple[int, int], lowest: int
) -> None:
    await http.post(f"/whip/v1{query}", published())
    (info,) = [each.info for each in http.participant().publishing.tracks.values() if each.info.type == models.VIDEO]
    assert (info.width, info.height) == size
    assert info.layers[0].width == lowest


@pytest.mark.parametrize("query", ["width=640", "width=0&height=360", "width=x&height=y", "width=99999&height=9"])
async def test_a_size_that_makes_no_sense_is_refused(http: Http, query: str) -> None:
    assert (await http.post(f"/whip/v1?{query}", published())).status_code == 400


async def test_stereo_sound_is_asked_for_as_music(http: Http) -> None:
    offer = published().replace("minptime=10;useinbandfec=1", "minptime=10;useinbandfec=1;sprop-stereo=1")
    answer = await http.post("/whip/v1", offer)
    opus = next(fmtp for number, fmtp in parse(answer.text).sections[0].profile.fmtps if number == 111)
    assert "stereo=1" in opus
    assert "usedtx" not in opus


async def test_delete_ends_a_session(http: Http) -> None:
    place = (await http.post("/whip/v1", published())).headers["location"]
    assert (await http.delete(place)).status_code == 200
    assert http.call.engine.usage() == {"transports": 0, "tracks": 0, "subscriptions": 0}
    assert (await http.delete(place)).status_code == 404


@pytest.mark.parametrize("path", PATHS)
async def test_a_session_belongs_to_its_room_and_identity(http: Http, path: str) -> None:
    place = (await http.post(path, offer_for(path))).headers["location"]
    other = PATHS[1 - PATHS.index(path)]
    assert (await http.delete(place, identity="eve")).status_code == 404
    assert (await http.delete(place, room="attic")).status_code == 404
    assert (await http.delete(place.replace(path, other))).status_code == 404
    assert (await http.delete(f"{path}/guessed")).status_code == 404
    assert (await http.client.delete(place)).status_code == 401
    assert "film" in http.call.room.participants


async def test_the_same_identity_again_takes_the_place_of_the_first(http: Http) -> None:
    left: list[RoomEvent] = []
    http.call.rooms.node.events.subscribe(
        lambda event: left.append(event) if isinstance(event, ParticipantLeft) else None
    )
    first = (await http.post("/whip/v1", published())).headers["location"]
    second = (await http.post("/whip/v1", published())).headers["location"]
    (gone,) = left
    assert isinstance(gone, ParticipantLeft)
    assert gone.reason == models.DUPLICATE_IDENTITY
    assert (await http.delete(first)).status_code == 404
    assert (await http.delete(second)).status_code == 200


async def test_a_bad_offer_leaves_the_one_before_in_its_place(http: Http) -> None:
    await http.post("/whip/v1", published())
    before = http.participant()
    unreadable = ("nonsense", played(), offer_of("chromium-publish.sdp", "5"))
    for bad in (*unreadable, contradictory(), of_one_track_id(), of_a_transport_without_password()):
        assert (await http.post("/whip/v1", bad)).status_code in (400, 422)
    assert http.participant() is before
    assert http.call.engine.usage()["transports"] == 1


async def test_a_session_whose_media_never_connect_ends(http: Http) -> None:
    place = (await http.post("/whip/v1", published())).headers["location"]
    await http.call.pass_time(JOIN_TIMEOUT_S - 1)
    assert "film" in http.call.room.participants
    await http.call.pass_time(2)
    assert "film" not in http.call.room.participants
    assert (await http.delete(place)).status_code == 404


@pytest.mark.parametrize("reason", ["consent expired", "closed by peer"])
async def test_a_session_ends_with_its_media(http: Http, reason: str) -> None:
    place = (await http.post("/whip/v1", published())).headers["location"]
    (transport,) = http.participant().renegotiation.transports
    await http.call.emit(TransportConnected(transport))
    await http.call.emit(TransportFailed(transport, reason))
    assert "film" not in http.call.room.participants
    assert (await http.delete(place)).status_code == 404


async def test_a_websocket_cannot_resume_it(http: Http) -> None:
    await http.post("/whip/v1", published())
    back = await http.call.join("film", reconnect=True, publisher_offer=None)
    assert back.of("leave")[0].reason == models.STATE_MISMATCH
    assert http.participant().connection is None


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Authorization": ""}, published(), 401),
        ({"Authorization": "Bearer nonsense"}, published(), 401),
        ({"Authorization": "Basic Zmlsb"}, published(), 401),
        ({"Content-Type": "text/plain"}, published(), 415),
        ({"Content-Type": "application/sdp; charset=utf-8"}, published(), 201),
        ({}, "", 400),
        ({}, b"\xff\xfe", 400),
        ({}, "v=0", 422),
        ({}, "nonsense", 400),
        ({}, "v=0\r\n" + "a=x\r\n" * endpoint.MAX_OFFER_BYTES, 413),
        ({}, played(), 422),
        ({}, offer_of("chromium-publish.sdp", "5"), 422),
        ({}, offer_of("chromium-publish.sdp", "2", "3", "4"), 422),
    ],
)
async def test_what_cannot_be_answered_is_told_as_a_problem(
    http: Http, headers: dict[str, str], body: str | bytes, status: int
) -> None:
    answer = await http.post("/whip/v1", body, **headers)
    assert answer.status_code == status
    if status != 201:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert answer.json()["detail"]
        assert http.call.rooms.rooms == {}
    assert ("www-authenticate" in answer.headers) is (status == 401)


@pytest.mark.parametrize(("path", "grant"), [("/whip/v1", "canPublish"), ("/whep/v1", "canSubscribe")])
async def test_a_token_without_the_permission_is_refused(http: Http, path: str, grant: str) -> None:
    refused: dict[str, Any] = {grant: False}
    answer = await http.post(path, offer_for(path), **http.bearer(**refused))
    assert answer.status_code == 403
    assert http.call.rooms.rooms == {}


async def test_a_token_without_room_join_is_refused(http: Http) -> None:
    answer = await http.post("/whip/v1", published(), **http.bearer(roomJoin=False))
    assert answer.status_code == 401


async def test_a_full_room_says_when_to_try_again(http: Http) -> None:
    http.call.rooms.create("hall", RoomOptions(max_participants=1))
    await http.call.join("ann", publisher_offer=None)
    answer = await http.post("/whip/v1", published())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_a_codec_that_the_room_does_not_allow_is_refused(http: Http) -> None:
    http.call.rooms.create("hall", RoomOptions(enabled_codecs=("audio/opus",)))
    answer = await http.post("/whip/v1", published())
    assert answer.status_code == 422
    assert http.call.room.participants == {}
    assert http.call.engine.usage()["transports"] == 0


async def test_a_full_engine_refuses(http: Http) -> None:
    http.call.engine.capacity = 0
    answer = await http.post("/whip/v1", published())
    assert answer.status_code == 503
    assert http.call.room.participants == {}


async def test_an_identity_has_so_many_sessions_at_a_time(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_OF_AN_IDENTITY", 2)
    places = {room: (await http.post("/whip/v1", published(), room=room)).headers["location"] for room in ("a", "b")}
    assert (await http.post("/whip/v1", published(), room="c")).status_code == 429
    assert http.call.rooms.drops()["whip_sessions_beyond_limit"] == 1
    assert (await http.post("/whip/v1", published(), room="c", identity="other")).status_code == 201
    assert (await http.post("/whip/v1", published(), room="a")).status_code == 201  # it takes the first one's place
    assert (await http.delete(places["b"], room="b")).status_code == 200
    assert (await http.post("/whip/v1", published(), room="d")).status_code == 201


async def test_refused_requests_do_not_count_as_sessions(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_OF_AN_IDENTITY", 1)
    bearer = http.bearer(canPublishSources=["screen_share"])
    for _ in range(3):
        assert (await http.post("/whip/v1", published(), **bearer)).status_code == 403
    assert (await http.post("/whip/v1", published())).status_code == 201


@pytest.mark.parametrize("path", PATHS)
async def test_methods_of_an_endpoint_and_of_a_session(http: Http, path: str) -> None:
    place = (await http.post(path, offer_for(path))).headers["location"]
    for where in (path, place):
        for method in ("GET", "HEAD"):
            answer = await http.client.request(method, where)
            assert (answer.status_code, answer.content) == (204, b"")
    options = await http.client.options(path)
    assert (options.status_code, options.headers["accept-post"]) == (200, SDP)
    preflight = {"Origin": "https://studio.example", "Access-Control-Request-Method": "PATCH"}
    allowed = await http.client.options(place, headers=preflight)
    assert allowed.status_code == 200
    assert "PATCH" in allowed.headers["access-control-allow-methods"]
    assert (await http.client.put(path)).status_code == 405
    answer = await http.client.post(place)
    assert (answer.status_code, answer.headers["allow"]) == (405, "PATCH, DELETE, OPTIONS, GET, HEAD")


async def test_a_prefix_that_a_proxy_did_not_remove_stays_in_the_location(http: Http) -> None:
    place = (await http.post("/media/whip/v1", published())).headers["location"]
    assert place.startswith("/media/whip/v1/")
    assert (await http.delete(place)).status_code == 200


async def test_a_prefix_may_have_any_characters(http: Http) -> None:
    answer = await http.post("/%E2%82%AC%20%3F/whip/v1", published())
    assert answer.status_code == 201
    place = answer.headers["location"]
    assert place.startswith("/%E2%82%AC%20%3F/whip/v1/")
    assert (await http.delete(place)).status_code == 200


async def test_the_location_names_the_room_where_the_token_does_not(http: Http) -> None:
    bearer = http.bearer(room="")
    answer = await http.post("/whip/v1?room=green%26hall", published(), **bearer)
    place = answer.headers["location"]
    assert place.endswith("?room=green%26hall")
    assert "film" in http.call.rooms.rooms["green&hall"].participants
    assert (await http.client.delete(place, headers=bearer)).status_code == 200
    ignored = await http.post("/whip/v1?room=attic", published())
    assert "?" not in ignored.headers["location"]


async def test_an_offer_counts_as_held_while_its_client_waits(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, waits = asyncio.Event(), asyncio.Event()

    async def wait(_who: tuple[str, str]) -> None:
        waits.set()
        await goes_on.wait()

    monkeypatch.setattr(http.call.rooms.node.entrances, "wait", wait)
    large = published() + f"a=x-padding:{'y' * 40}\r\n" * 400
    monkeypatch.setattr(bodies, "MAX_BODIES_BYTES", len(large) - bodies.SMALL_BODY_BYTES + 100)
    first = asyncio.create_task(http.post("/whip/v1", large))
    await waits.wait()
    assert (await http.post("/whip/v1", large, identity="other")).status_code == 429
    assert http.call.rooms.drops()["api_bodies"] == 1
    goes_on.set()
    assert (await first).status_code == 201
    assert (await http.post("/whip/v1", large, identity="other")).status_code == 201


async def test_a_server_that_stops_refuses(http: Http) -> None:
    place = (await http.post("/whip/v1", published())).headers["location"]
    await http.call.rooms.stop()
    assert (await http.delete(place)).status_code == 404


@pytest.mark.parametrize("path", PATHS)
async def test_a_query_that_takes_long_to_read_is_not_read(http: Http, path: str) -> None:
    for method in ("OPTIONS", "POST", "DELETE"):
        answer = await http.client.request(method, f"{path}{'/session' * (method == 'DELETE')}?{'&' * 100}")
        assert (answer.status_code, answer.json()["detail"]) == (400, "too many parameters")
