"""What participants know of each other: who is here, what they say about themselves, what they may and do publish."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from livekit import rtc
from livekit.protocol.models import DisconnectReason
from livekit.rtc.participant import PublishTrackError

from signaling.participants.token_refresh import TOKEN_PACE_S
from tests.clients.conftest import Join, PeerFactory
from tests.clients.facts import had, hears, knows, media, misses, reads, stands_still
from tests.clients.peers import WAIT_S, BrowserPeer, SdkPeer, eventually
from tests.clients.sfu_server import ServerUnderTest

pytestmark = [pytest.mark.client, pytest.mark.asyncio(loop_scope="session")]

MICROPHONE = "room.localParticipant.getTrackPublication('microphone')"


async def about(peer: BrowserPeer | SdkPeer, identity: str) -> tuple[str, str, dict[str, str]]:
    """(name, metadata, attributes) of somebody as `peer` was told."""
    if isinstance(peer, SdkPeer):
        other = peer.room.remote_participants[identity]
        return other.name, other.metadata, dict(other.attributes)
    name, metadata, attributes = await peer.run(
        f"(({{name, metadata, attributes}}) => [name ?? '', metadata ?? '', attributes])"
        f"(room.getParticipantByIdentity('{identity}'))"
    )
    return name, metadata, attributes


async def _attribute(participant: rtc.LocalParticipant, attribute: str, wanted: str) -> bool:
    """Whether the SDK knows this of its own participant."""
    return bool(getattr(participant, attribute) == wanted)


async def test_everybody_is_told_who_comes_and_who_goes(join: Join) -> None:
    claims = {"name": "Grace H.", "metadata": "admiral", "attributes": {"team": "compilers"}}
    ada: BrowserPeer = await join("chromium", "ada")
    linus: SdkPeer = await join("sdk", "linus")
    grace: SdkPeer = await join("sdk-dual", "grace", claims=claims)
    await had(ada, "ParticipantConnected", "grace")
    await knows(linus, "grace")
    for peer in (ada, linus):
        assert await about(peer, "grace") == ("Grace H.", "admiral", {"team": "compilers"})
    assert set(grace.room.remote_participants) == {"ada", "linus"}
    await grace.leave()
    await had(ada, "ParticipantDisconnected", "grace")
    await misses(linus, "grace")
    assert (await ada.state())["participants"] == ["linus"]


async def test_what_a_participant_says_about_itself_reaches_everybody(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada", canUpdateOwnMetadata=True)
    grace: SdkPeer = await join("sdk", "grace", canUpdateOwnMetadata=True)
    await knows(ada, "grace")
    await knows(grace, "ada")
    await ada.run("room.localParticipant.setName('Countess').then(() => 1)")
    await ada.run("room.localParticipant.setMetadata('notes').then(() => 1)")
    await ada.run("room.localParticipant.setAttributes({mood: 'calm', hand: 'up'}).then(() => 1)")
    await ada.run("room.localParticipant.setAttributes({hand: ''}).then(() => 1)")
    # This SDK sends the name and metadata that it knows of itself with each change of something else. It reads the
    # server's update in another task than the answer, so it may return from a change before it knows its own new name,
    # and would set the old one again, whatever the server does: whoever uses it has to wait for the update.
    herself = grace.room.local_participant
    await herself.set_name("Admiral")
    await eventually(partial(_attribute, herself, "name", "Admiral"), "grace knows her new name")
    await herself.set_metadata("cobol")
    await eventually(partial(_attribute, herself, "metadata", "cobol"), "grace knows her new metadata")
    await herself.set_attributes({"ship": "Hopper"})
    for peer, other, wanted in (
        (grace, "ada", ("Countess", "notes", {"mood": "calm"})),
        (ada, "grace", ("Admiral", "cobol", {"ship": "Hopper"})),
    ):

        async def told(peer: Any = peer, other: str = other, wanted: Any = wanted) -> bool:
            return bool(await about(peer, other) == wanted)

        await eventually(told, f"{peer.identity} is told about {other}", detail=partial(about, peer, other))
    late: SdkPeer = await join("sdk", "late")
    assert await about(late, "ada") == ("Countess", "notes", {"mood": "calm"})


async def test_a_full_reconnect_keeps_what_a_participant_said_about_itself(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada", canUpdateOwnMetadata=True)
    grace: SdkPeer = await join("sdk", "grace")
    await knows(grace, "ada")
    first = grace.room.remote_participants["ada"].sid
    await ada.run("room.localParticipant.setAttributes({hand: 'up'}).then(() => 1)")
    await ada.run("room.localParticipant.setName('Countess').then(() => 1)")
    wanted = ("Countess", "", {"hand": "up"})

    async def told() -> bool:
        return await about(grace, "ada") == wanted

    await eventually(told, "grace is told about ada")
    await asyncio.sleep(2 * TOKEN_PACE_S + 1)  # of a burst the last token comes after the pace, with the next look
    await ada.run("room.simulateScenario('full-reconnect').then(() => 1)")

    async def back() -> bool:
        other = grace.room.remote_participants.get("ada")
        return other is not None and other.sid != first

    await eventually(back, "ada is back as a new participant")
    assert await about(grace, "ada") == wanted


async def test_without_the_grant_nobody_renames_himself(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    refused = await ada.run("room.localParticipant.setName('root').then(() => '', (error) => error.message)")
    assert "does not allow" in refused
    await grace.room.local_participant.set_metadata("root")  # this SDK does not tell of the refusal
    await ada.say("done")
    await reads(grace, "ada", "done")
    assert await about(grace, "ada") == ("ada", "", {})
    assert await about(ada, "grace") == ("grace", "", {})


async def _refusal(peer: BrowserPeer, publish: str) -> str:
    """How publishing failed; empty if it did not."""
    return str(await peer.run(f"peer.{publish}().then(() => '', (error) => `${{error.name}}: ${{error.message}}`)"))


async def test_publishing_needs_the_grant(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada", canPublish=False, canPublishData=True)
    grace: SdkPeer = await join("sdk", "grace", canPublish=False)
    linus: SdkPeer = await join("sdk", "linus")
    await knows(ada, "linus")
    await knows(grace, "linus")
    assert await _refusal(ada, "publishAudio")
    with pytest.raises(PublishTrackError, match="timed out"):  # this SDK does not listen to refusals
        await grace.publish_audio()
    await grace.say("data is publishing too, unless the token says otherwise")
    await linus.publish_audio()
    await hears(ada, "linus")
    await hears(grace, "linus")
    await ada.say("still here")
    await reads(linus, "ada", "still here")
    assert await linus.messages() == [("ada", "still here")]
    assert await linus.received() == {"ada": {}, "grace": {}}


async def test_only_granted_sources_may_be_published(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada", canPublishSources=["microphone"])
    grace: SdkPeer = await join("sdk", "grace")
    assert await _refusal(ada, "publishVideo")
    await ada.publish_audio()
    await hears(grace, "ada")
    assert set((await grace.received())["ada"]) == {"microphone"}


async def test_who_may_not_subscribe_gets_no_media_but_is_heard(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada", canSubscribe=False)
    grace: SdkPeer = await join("sdk", "grace")
    await ada.publish_audio()
    await grace.publish_audio()
    await hears(grace, "ada")

    async def told() -> Any:
        return await media(ada, "grace")

    track = await eventually(told, "ada is told of grace's track")
    assert not track.subscribed
    assert track.packets == 0


async def test_a_hidden_participant_hears_unseen(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    ghost: SdkPeer = await join("sdk", "ghost", hidden=True)
    grace: SdkPeer = await join("sdk", "grace")
    await ada.publish_audio()
    await hears(ghost, "ada")
    await knows(ada, "grace")
    await ghost.leave()
    await grace.leave()
    await misses(ada, "grace")
    assert not [event for event in (await ada.state())["events"] if "ghost" in event]
    assert "ghost" not in grace.room.remote_participants


@pytest.mark.parametrize("kind", ["chromium", "sdk"])
async def test_a_second_client_with_the_same_identity_replaces_the_first(join: Join, kind: str) -> None:
    watcher: BrowserPeer = await join("chromium", "watcher")
    first: BrowserPeer | SdkPeer = await join(kind, "twin")
    reasons: list[int] = []
    if isinstance(first, SdkPeer):
        first.room.on("disconnected", reasons.append)
    await knows(watcher, "twin")
    second: SdkPeer = await join("sdk", "twin")

    async def reason() -> int | None:
        if isinstance(first, SdkPeer):
            return reasons[0] if reasons else None
        return next((event[1] for event in (await first.state())["events"] if event[0] == "Disconnected"), None)

    assert await eventually(reason, "the first one is sent away") == DisconnectReason.DUPLICATE_IDENTITY
    sid = second.room.local_participant.sid

    async def replaced() -> bool:
        return bool(await watcher.run("room.getParticipantByIdentity('twin')?.sid") == sid)

    await eventually(replaced, "the watcher sees the second one")
    await second.publish_audio()
    await hears(watcher, "twin")


async def test_muting_is_seen_by_others_and_undone(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    linus: BrowserPeer = await join("firefox", "linus")
    await ada.publish_audio()
    await hears(grace, "ada")
    await hears(linus, "ada")

    async def muted() -> bool:
        publication = next(iter(grace.room.remote_participants["ada"].track_publications.values()))
        return bool(publication.muted)

    await ada.run(f"{MICROPHONE}.mute().then(() => 1)")
    await eventually(muted, "grace sees ada muted")
    await had(linus, "TrackMuted")
    late: SdkPeer = await join("sdk", "late")
    assert [p.muted for p in late.room.remote_participants["ada"].track_publications.values()] == [True]
    await ada.run(f"{MICROPHONE}.unmute().then(() => 1)")
    await had(linus, "TrackUnmuted")

    async def unmuted() -> bool:
        return not await muted()

    await eventually(unmuted, "grace sees ada unmuted")
    for peer in (grace, linus, late):
        await hears(peer, "ada")


async def test_a_track_that_was_unpublished_is_gone_and_may_come_again(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    linus: BrowserPeer = await join("chromium", "linus")
    grace: SdkPeer = await join("sdk-dual", "grace")
    first = await ada.publish_audio()
    await hears(linus, "ada")
    await hears(grace, "ada")
    for _ in range(3):
        await ada.run(f"room.localParticipant.unpublishTrack({MICROPHONE}.track).then(() => 1)")
        await had(linus, "TrackUnpublished", first)

        async def gone() -> bool:
            return not (await grace.received())["ada"]

        await eventually(gone, "the track is gone at grace")
        second = await ada.publish_audio()
        assert second != first
        await hears(linus, "ada")
        await hears(grace, "ada")
        first = second


@pytest.mark.parametrize("kind", ["chromium", "sdk"])
async def test_the_one_who_makes_sound_is_the_active_speaker(join: Join, kind: str) -> None:
    ada: BrowserPeer | SdkPeer = await join(kind, "ada")
    grace: SdkPeer = await join("sdk", "grace")
    quiet: BrowserPeer = await join("chromium", "quiet")
    await quiet.publish_audio()
    await quiet.run(f"{MICROPHONE}.mute().then(() => 1)")

    async def muted() -> bool:
        track = next(iter(grace.room.remote_participants["quiet"].track_publications.values()), None)
        return track is not None and bool(track.muted)

    await eventually(muted, "quiet is muted")
    speaking: list[list[str]] = []
    grace.room.on("active_speakers_changed", lambda speakers: speaking.append([one.identity for one in speakers]))
    await (ada.publish_audio() if isinstance(ada, SdkPeer) else ada.call("publishTone"))

    async def reported() -> bool:
        return ["ada"] in speaking and (await quiet.state())["speakers"] == ["ada"]

    await eventually(reported, "ada speaks", detail=quiet.state)
    if isinstance(ada, SdkPeer):
        (publication,) = ada.room.local_participant.track_publications.values()
        assert publication.track is not None
        publication.track.mute()
    else:
        await ada.run(f"{MICROPHONE}.mute().then(() => 1)")

    async def silent() -> bool:
        return speaking[-1] == [] and (await quiet.state())["speakers"] == []

    await eventually(silent, "nobody speaks", detail=quiet.state)
    assert {identity for speakers in speaking for identity in speakers} == {"ada"}


async def test_everybody_is_told_how_good_connections_are(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    await ada.publish_audio()

    async def told() -> bool:
        seen = await ada.run(
            "[room.localParticipant, ...room.remoteParticipants.values()].map((p) => p.connectionQuality)"
        )
        return bool(seen == ["excellent", "excellent"])

    await eventually(told, "ada knows her connection and grace's")
    good = rtc.ConnectionQuality.QUALITY_EXCELLENT

    async def told_too() -> bool:
        return grace.room.remote_participants["ada"].connection_quality == good

    await eventually(told_too, "grace knows ada's connection")


async def test_a_publisher_decides_who_may_subscribe(join: Join) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    grace: SdkPeer = await join("sdk", "grace")
    linus: BrowserPeer = await join("chromium", "linus")
    await ada.publish_audio()
    await hears(grace, "ada")
    await hears(linus, "ada")
    only_grace = json.dumps([{"participantIdentity": "grace", "allowAll": True}])
    await ada.run(f"void room.localParticipant.setTrackSubscriptionPermissions(false, {only_grace})")

    async def refused() -> bool:
        track = await media(linus, "ada")
        return track is not None and not track.subscribed

    await eventually(refused, "linus loses the track", detail=linus.received)
    await had(linus, "TrackSubscriptionPermissionChanged")
    await hears(grace, "ada")
    await ada.run("void room.localParticipant.setTrackSubscriptionPermissions(true)")
    await hears(linus, "ada")


async def test_tracks_are_subscribed_by_hand_when_asked_so(
    server: ServerUnderTest, make_peer: PeerFactory, join: Join, room: str
) -> None:
    ada: BrowserPeer = await join("chromium", "ada")
    await ada.publish_audio()
    linus: BrowserPeer = await make_peer("chromium", "linus")
    await linus.join(server, room, {"autoSubscribe": False})
    grace: SdkPeer = await make_peer("sdk", "grace", auto_subscribe=False)
    await grace.join(server, room)
    for peer in (linus, grace):
        await eventually(partial(media, peer, "ada"), f"{peer.identity} is told of the track")

    async def choose(subscribed: bool) -> None:
        flag = json.dumps(subscribed)
        await linus.run(f"void peer.publication('ada', 'microphone').setSubscribed({flag})")
        for publication in grace.room.remote_participants["ada"].track_publications.values():
            publication.set_subscribed(subscribed)

    for peer in (linus, grace):
        track = await media(peer, "ada")
        assert track is not None
        assert (track.subscribed, track.packets) == (False, 0)
    await choose(True)
    await asyncio.gather(hears(linus, "ada"), hears(grace, "ada"))
    await choose(False)
    for peer in (linus, grace):
        await stands_still(peer, "ada")
    await choose(True)
    await asyncio.gather(hears(linus, "ada"), hears(grace, "ada"))


@pytest.mark.parametrize("pause_s", [0.01, 0.03])  # without a pause this SDK may turn the two requests round
async def test_a_track_comes_back_however_soon_it_is_asked_for_again(join: Join, pause_s: float) -> None:
    ada: SdkPeer = await join("sdk", "ada")
    linus: SdkPeer = await join("sdk", "linus")
    await ada.publish_audio()
    await hears(linus, "ada")
    (publication,) = linus.room.remote_participants["ada"].track_publications.values()
    gone, back = asyncio.Event(), asyncio.Event()
    linus.room.on("track_unsubscribed", lambda *_: gone.set())
    linus.room.on("track_subscribed", lambda *_: back.set())
    publication.set_subscribed(False)
    await asyncio.sleep(pause_s)
    publication.set_subscribed(True)
    for event in (gone, back):
        async with asyncio.timeout(WAIT_S):
            await event.wait()
    await hears(linus, "ada")


@pytest.mark.parametrize("pause_s", [0.01, 0.03, 0.3])  # without a pause this SDK may turn the two requests round
async def test_a_track_comes_back_to_a_client_with_two_connections(join: Join, pause_s: float) -> None:
    ada: SdkPeer = await join("sdk", "ada")
    linus: SdkPeer = await join("sdk-dual", "linus")
    await ada.publish_audio()
    await hears(linus, "ada")
    (publication,) = linus.room.remote_participants["ada"].track_publications.values()
    back = asyncio.Event()
    linus.room.on("track_subscribed", lambda *_: back.set())
    for _ in range(3):
        back.clear()
        publication.set_subscribed(False)
        await asyncio.sleep(pause_s)
        publication.set_subscribed(True)
        async with asyncio.timeout(WAIT_S):
            await back.wait()
        await hears(linus, "ada")
