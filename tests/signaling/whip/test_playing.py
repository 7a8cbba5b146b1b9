"""WHEP: what a player is shown, and how that changes without another offer."""

import asyncio

import httpx
import pytest
from livekit.protocol import models

from signaling.due_work import TURN_S
from signaling.participants import renegotiation
from signaling.participants.offered_once import OfferedOnce
from signaling.rooms.tracks import Track
from signaling.sdp.parsing import parse
from signaling.sdp.session_description import Direction
from signaling.whip import showing
from signaling.whip.showing import LEAST_TURN_S
from tests.signaling.support.call import CAMERA_LAYERS, Client, settle
from tests.signaling.support.offers import offer_of, played, published
from tests.signaling.whip.conftest import Http

LOUD, QUIET = 0.8, 0.3


class Studio:
    """People who publish by WHIP, and a player."""

    def __init__(self, http: Http) -> None:
        self.http = http

    async def publish(self, *identities: str) -> None:
        for identity in identities:
            assert (await self.http.post("/whip/v1", published(), identity=identity)).status_code == 201

    async def play(self, **query: str) -> httpx.Response:
        path = str(httpx.URL("/whep/v1", params=query))
        answer = await self.http.post(path, played(), identity="screen")
        assert answer.status_code == 201
        return answer

    def shown(self, screen: str = "screen") -> set[tuple[str, str]]:
        """(publisher, kind) of what a player is sent."""
        engine = self.http.call.engine
        (transport,) = self.http.participant(screen).renegotiation.transports
        tracks = [track for track, to, _ in engine.subscriptions.values() if to == transport]
        known = [self.http.call.rooms.node.tracks[track] for track in tracks]
        return {(each.publisher.identity, each.kind.value) for each in known}

    async def speak(self, seconds: float = LEAST_TURN_S, **levels: float) -> None:
        """Let people speak at these levels for some time."""
        call = self.http.call
        call.engine.levels = [
            (engine_track, level)
            for identity, level in levels.items()
            for track in self.http.participant(identity).publishing.tracks.values()
            if track.info.source == models.MICROPHONE
            for engine_track in track.engine_tracks
        ]
        await call.pass_time(seconds)
        await call.collect()


async def test_a_player_gets_one_stream_that_is_ready_for_any_track(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann")
    answer = await studio.play()
    session = parse(answer.text)
    assert [session.direction_of(each) for each in session.sections] == [Direction.SENDONLY] * 2
    (streams,) = ({each.msids[0][0] for each in session.sections},)
    assert len(streams) == 1
    assert all(each.ssrcs == () and each.ssrc_groups == () for each in session.sections)
    assert "a=ssrc" not in answer.text
    assert studio.shown() == {("ann", "audio"), ("ann", "video")}


async def test_a_player_waits_where_nobody_publishes_yet(http: Http) -> None:
    studio = Studio(http)
    session = parse((await studio.play()).text)
    assert [session.direction_of(each) for each in session.sections] == [Direction.SENDONLY] * 2
    assert studio.shown() == set()
    await studio.publish("ann")
    await studio.speak()
    assert studio.shown() == {("ann", "audio"), ("ann", "video")}


async def test_a_player_is_shown_who_speaks(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann", "bob", "carol")
    await studio.play()
    assert studio.shown() == {("ann", "audio"), ("ann", "video")}
    await studio.speak(bob=QUIET, carol=LOUD)
    assert studio.shown() == {("carol", "audio"), ("carol", "video")}
    await studio.speak(bob=LOUD, carol=QUIET)  # whoever is shown stays while they speak
    assert studio.shown() == {("carol", "audio"), ("carol", "video")}
    await studio.speak()  # and while nobody else does
    assert studio.shown() == {("carol", "audio"), ("carol", "video")}
    await studio.speak(bob=QUIET)
    assert studio.shown() == {("bob", "audio"), ("bob", "video")}
    await studio.speak(0.4, ann=LOUD)  # their turn has just begun
    assert studio.shown() == {("bob", "audio"), ("bob", "video")}
    assert http.call.engine.usage()["subscriptions"] == 2


async def test_when_the_speaker_leaves_another_is_shown(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann", "bob")
    await studio.play()
    http.call.room.remove(http.participant("ann"), models.CLIENT_INITIATED)
    await studio.speak(0.4)
    assert studio.shown() == {("bob", "audio"), ("bob", "video")}


async def test_a_player_may_ask_for_one_participant(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann", "bob")
    await studio.play(participant="bob")
    assert studio.shown() == {("bob", "audio"), ("bob", "video")}
    await studio.speak(ann=LOUD)
    assert studio.shown() == {("bob", "audio"), ("bob", "video")}
    await studio.publish("bob")  # with other tracks than before
    await studio.speak()
    assert studio.shown() == {("bob", "audio"), ("bob", "video")}


async def test_a_name_that_nobody_can_have_is_not_kept(http: Http) -> None:
    answer = await http.post(f"/whep/v1?participant={'x' * 300}", played(), identity="screen")
    assert answer.status_code == 400
    assert http.call.rooms.rooms == {}


async def test_a_player_may_ask_for_a_shared_screen(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann")
    await http.post("/whip/v1?source=screen_share", published(), identity="bob")
    await studio.play(source="screen_share")
    assert studio.shown() == {("bob", "audio"), ("bob", "video")}
    refused = await http.post("/whep/v1?source=hologram", played(), identity="other")
    assert refused.status_code == 400


async def test_hidden_publishers_are_not_shown(http: Http) -> None:
    studio = Studio(http)
    await http.post("/whip/v1", published(), identity="ann", **http.bearer("ann", hidden=True))
    await studio.play(participant="ann")
    assert studio.shown() == set()
    await studio.play()
    await studio.speak()
    assert studio.shown() == set()


async def test_a_tick_looks_at_each_track_once_for_all_players(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(http)
    await studio.publish("ann", "bob", "carol")
    looked: list[Track] = []
    real = showing._is_picture

    def is_picture(track: Track, source: models.TrackSource) -> bool:
        looked.append(track)
        return real(track, source)

    monkeypatch.setattr(showing, "_is_picture", is_picture)
    counts = []
    for number, shown in enumerate(("ann", "", "bob", "", "carol", "ann", "nobody")):
        answer = await http.post(f"/whep/v1?participant={shown}", played(), identity=f"screen{number}")
        assert answer.status_code == 201
        looked.clear()
        await http.call.pass_time(0.4)
        counts.append(len(looked))
    assert counts[0] == len(http.call.room.tracks) == 6
    assert set(counts[1:]) == {12}, "another walk finds who may be on stage"


async def test_a_change_that_concerns_many_players_leaves_others_their_turns(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = Studio(http)
    await studio.publish("ann", "bob")
    screens = [f"screen{number}" for number in range(8)]
    for screen in screens:
        assert (await http.post("/whep/v1", played(), identity=screen)).status_code == 201
    await http.call.collect()  # what their joins left to negotiate
    monkeypatch.setattr(renegotiation, "COLLECT_S", 0)
    done: list[str] = []
    all_done = asyncio.Event()
    real = OfferedOnce._negotiate

    def negotiate(connection: OfferedOnce) -> None:
        real(connection)
        http.call.now += TURN_S / 2
        done.append("n")
        if done.count("n") == len(screens):
            all_done.set()

    monkeypatch.setattr(OfferedOnce, "_negotiate", negotiate)

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            done.append("-")

    task = asyncio.create_task(others())
    await studio.speak(bob=LOUD)
    async with asyncio.timeout(20):
        await all_done.wait()
    task.cancel()
    assert max(map(len, "".join(done).split("-"))) == 2
    assert {shown for screen in screens for shown in studio.shown(screen)} == {("bob", "audio"), ("bob", "video")}


async def test_a_player_that_only_hears(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann", "bob")
    offer = offer_of("chromium-publish.sdp", "0")
    assert (await http.post("/whep/v1", offer, identity="screen")).status_code == 201
    assert studio.shown() == {("ann", "audio")}
    await studio.speak(bob=LOUD)
    assert studio.shown() == {("bob", "audio")}


async def test_what_a_client_with_a_websocket_publishes_is_shown(http: Http) -> None:
    ann: Client = await http.call.join("ann", publisher_offer=None)
    request = {"type": models.VIDEO, "source": models.CAMERA, "layers": CAMERA_LAYERS}
    await ann.send(add_track={"cid": "camera", **request})
    offer = offer_of("chromium-publish.sdp", "3")
    await ann.send(offer={"type": "offer", "sdp": offer, "id": 1})
    studio = Studio(http)
    await studio.play()
    assert studio.shown() == {("ann", "video")}


async def test_permission_and_access_hold_for_players(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann")
    await studio.play()
    permission = models.ParticipantPermission(can_publish=True)
    http.participant("screen").update("", "", {}, permission)
    await http.call.collect()
    assert studio.shown() == set()
    permission.can_subscribe = True
    http.participant("screen").update("", "", {}, permission)
    await http.call.collect()
    await settle()
    assert studio.shown() == {("ann", "audio"), ("ann", "video")}


async def test_a_track_that_cannot_be_decoded_is_not_sent(http: Http) -> None:
    studio = Studio(http)
    await studio.publish("ann")
    lines = [line for line in played().split("\r\n") if "AV1" not in line and "H264" not in line and "VP9" not in line]
    only_vp8 = "\r\n".join(lines)
    assert (await http.post("/whep/v1", only_vp8, identity="screen")).status_code == 201
    assert studio.shown() == {("ann", "audio"), ("ann", "video")}
