"""signaling/participants/participant.py: participants that came by no WebSocket, and what others may do to any."""

import jwt
import pytest
from livekit.protocol import models, rtc

from signaling.errors import RequestRefused
from signaling.participants.participant import JOIN_TIMEOUT_S, Participant
from signaling.participants.token_refresh import TOKEN_INTERVAL_S
from signaling.profile import ClientSettings, Profile
from signaling.rooms.access import SubscriptionAccess
from tests.signaling.support.call import Call, settle


async def test_a_participant_needs_no_websocket(call: Call) -> None:
    ann = await call.join("ann")
    await ann.connect()
    ann.forget()
    profile = Profile("bot", name="Bot", metadata="m", attributes={"a": "b"}, kind=models.ParticipantInfo.INGRESS)
    bot = Participant(call.rooms.node, call.room, profile)
    call.room.add(bot)
    bot.set_joined()
    await settle()
    (info,) = [info for update in ann.of("update") for info in update.participants if info.identity == "bot"]
    assert (info.name, info.metadata, dict(info.attributes)) == ("Bot", "m", {"a": "b"})
    assert (info.kind, info.state) == (models.ParticipantInfo.INGRESS, models.ParticipantInfo.JOINED)
    assert info.permission.can_publish
    assert info.permission.can_subscribe
    # It has no token, so none is refreshed, whatever changes and however long it stays.
    bot.active = True
    bot.update("Robot", "", {})
    bot.token.send()
    await call.pass_time(TOKEN_INTERVAL_S)
    await call.pass_time(JOIN_TIMEOUT_S)
    assert call.room.participants["bot"] is bot
    call.room.remove(bot, models.PARTICIPANT_REMOVED)
    await settle()
    assert ann.of("update")[-1].participants[0].disconnect_reason == models.PARTICIPANT_REMOVED
    assert call.rooms.node.participants.keys() == set(ann.participant.renegotiation.transports)


async def test_a_join_makes_the_profile(call: Call) -> None:
    parameters = call.parameters(
        "ann",
        {"can_publish": False, "hidden": True},
        kind=models.ParticipantInfo.AGENT,
        metadata="m",
        attributes={"a": "b"},
        auto_subscribe=False,
    )
    profile, settings = parameters.profile, parameters.settings
    assert (profile.identity, profile.name, profile.metadata) == ("ann", "name of ann", "m")
    assert (profile.attributes, profile.kind) == ({"a": "b"}, models.ParticipantInfo.AGENT)
    assert (profile.permission.can_publish, profile.permission.hidden) == (False, True)
    assert settings == ClientSettings(parameters.client_info, True, False, False)


async def test_others_may_change_a_participant_that_may_not_itself(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    bob.forget()
    with pytest.raises(RequestRefused) as refused:
        ann.participant.update_itself("Ann", "", {})
    assert refused.value.reason == rtc.RequestResponse.NOT_ALLOWED
    ann.participant.update("Ann", "", {})
    await call.pass_time(2)
    assert bob.of("update")[-1].participants[0].name == "Ann"
    claims = jwt.decode(ann.of("refresh_token")[-1], "secret", algorithms=["HS256"])
    assert claims["name"] == "Ann"


async def test_a_track_is_muted_without_a_request(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    ann.participant.publishing.set_muted(sid, True)
    await settle()
    assert bob.of("update")[-1].participants[0].tracks[0].muted
    with pytest.raises(RequestRefused):
        ann.participant.publishing.set_muted("TR_none", True)


async def test_access_is_taken_without_a_request(call: Call) -> None:
    ann, bob = await call.join("ann"), await call.join("bob")
    sid = await ann.publish("mic", "audio")
    assert sid in bob.participant.subscriptions.active
    ann.participant.set_access(SubscriptionAccess(everyone=False))
    assert sid not in bob.participant.subscriptions.active
    assert not bob.of("subscription_permission_update")[-1].allowed
