"""One small function per message that a client can send, and the table that picks it.

A handler changes the participant through its parts and returns nothing; it raises `RequestRefused` for what the client
may not have (answered here) and `SessionEnded` for what ends the stay (answered by `Room.guard`).
"""

import time
from collections.abc import Callable
from typing import Any

import structlog
from google.protobuf.message import Message
from livekit.protocol.rtc import (
    AddTrackRequest,
    GetDataBlobRequest,
    GetDataBlobResponse,
    LeaveRequest,
    MuteTrackRequest,
    Ping,
    Pong,
    PublishDataTrackRequest,
    PublishDataTrackResponse,
    RequestResponse,
    SessionDescription,
    SignalRequest,
    SignalResponse,
    SimulateScenario,
    StoreDataBlobRequest,
    StoreDataBlobResponse,
    SubscriptionPermission,
    SyncState,
    TrackPublishedResponse,
    TrickleRequest,
    UnpublishDataTrackRequest,
    UnpublishDataTrackResponse,
    UpdateDataSubscription,
    UpdateLocalAudioTrack,
    UpdateLocalVideoTrack,
    UpdateParticipantMetadata,
    UpdateSubscription,
    UpdateTrackSettings,
)

from signaling.errors import RequestRefused
from signaling.http.bounds import TooManyEntries, check_request
from signaling.limits import MAX_ECHO_BYTES
from signaling.participants import simulation
from signaling.participants.participant import Participant
from signaling.rooms.access import SubscriptionAccess

log = structlog.get_logger("signaling.handlers")

_ECHOED = {
    "trickle": "trickle",
    "add_track": "add_track",
    "mute": "mute",
    "update_metadata": "update_metadata",
    "update_audio_track": "update_audio_track",
    "update_video_track": "update_video_track",
    "publish_data_track_request": "publish_data_track",
    "unpublish_data_track_request": "unpublish_data_track",
}
"""Request -> field of `request_response` that repeats it, by which a client recognises its request."""


def dispatch(participant: Participant, request: SignalRequest) -> None:
    """Handle one request. Kinds that are unknown here, from newer clients, are ignored."""
    name = request.WhichOneof("message")
    if name is not None:
        answer(participant, name, getattr(request, name))


def answer(participant: Participant, name: str, message: Any) -> None:
    """Handle the request `name` with this content, and tell the client if it is refused."""
    handler = HANDLERS.get(name)
    if handler is None:
        log.debug("request is not supported", request=name)
        return
    try:
        check_request(name, message)
        handler(participant, message)
    except TooManyEntries as error:
        participant.node.dropped["requests_with_too_many_entries"] += 1
        respond(participant, name, message, RequestResponse.LIMIT_EXCEEDED, str(error))
    except RequestRefused as error:
        log.debug("request refused", request=name, identity=participant.identity, why=error.text)
        respond(participant, name, message, error.reason, error.text)


def respond(participant: Participant, name: str, message: Any, reason: RequestResponse.Reason, text: str = "") -> None:
    """Send the outcome of a request. The request is repeated if the message has a field for it and it is short."""
    response = RequestResponse(reason=reason, message=text, request_id=getattr(message, "request_id", 0))
    if name in _ECHOED and isinstance(message, Message) and message.ByteSize() <= MAX_ECHO_BYTES:
        getattr(response, _ECHOED[name]).CopyFrom(message)
    participant.send(SignalResponse(request_response=response))


# Session descriptions.


def handle_offer(participant: Participant, offer: SessionDescription) -> None:
    """Take an offer: of what the client publishes and, with one connection, of where it can receive."""
    participant.renegotiation.receive_offer(offer)


def handle_answer(participant: Participant, description: SessionDescription) -> None:
    """Take the client's answer to our offer."""
    participant.renegotiation.receive_answer(description)


def handle_trickle(participant: Participant, trickle: TrickleRequest) -> None:
    """Do nothing: an ICE-lite server learns the client's addresses from its checks (RFC 8445 section 2.5)."""


# Publishing.


def handle_add_track(participant: Participant, request: AddTrackRequest) -> None:
    """Announce a track that the client is about to publish, or another codec of one."""
    info = participant.publishing.add_track(request)
    participant.send(SignalResponse(track_published=TrackPublishedResponse(cid=request.cid, track=info)))


def handle_mute(participant: Participant, request: MuteTrackRequest) -> None:
    """Note that the client muted or unmuted its own track."""
    participant.publishing.set_muted(request.sid, request.muted)


def handle_update_audio_track(participant: Participant, request: UpdateLocalAudioTrack) -> None:
    """Note new features of the client's audio track, such as stereo."""
    participant.publishing.set_audio_features(request.track_sid, request.features)


def handle_update_video_track(participant: Participant, request: UpdateLocalVideoTrack) -> None:
    """Note a new size of the client's video track."""
    participant.publishing.set_video_size(request.track_sid, request.width, request.height)


def handle_subscription_permission(participant: Participant, request: SubscriptionPermission) -> None:
    """Set who may subscribe to the client's tracks."""
    participant.set_access(SubscriptionAccess.parse(request))


# Subscribing.


def handle_subscription(participant: Participant, request: UpdateSubscription) -> None:
    """Subscribe the client to tracks, or unsubscribe it."""
    participant.subscriptions.update(request)


def handle_track_setting(participant: Participant, request: UpdateTrackSettings) -> None:
    """Note in which quality or size the client shows tracks."""
    participant.subscriptions.set(request)


# The participant itself.


def handle_update_metadata(participant: Participant, request: UpdateParticipantMetadata) -> None:
    """Change the client's own name, metadata or attributes."""
    participant.update_itself(request.name, request.metadata, dict(request.attributes))
    participant.send(
        SignalResponse(request_response=RequestResponse(reason=RequestResponse.OK, request_id=request.request_id))
    )


def handle_leave(participant: Participant, request: LeaveRequest) -> None:
    """Let the client leave."""
    participant.leave_room()


def handle_ping(participant: Participant, timestamp: int) -> None:
    """Answer the old kind of ping with our time in milliseconds."""
    participant.presence.note_ping()
    participant.send(SignalResponse(pong=_now_ms()))


def handle_ping_req(participant: Participant, ping: Ping) -> None:
    """Answer the new kind of ping, from which the client computes the round-trip time."""
    participant.presence.note_ping()
    participant.send(SignalResponse(pong_resp=Pong(last_ping_timestamp=ping.timestamp, timestamp=_now_ms())))


def handle_sync_state(participant: Participant, state: SyncState) -> None:
    """Take over the state of a resuming client. If it publishes unknown tracks, it has to start again."""
    participant.synchronize(state)


def handle_simulate(participant: Participant, scenario: SimulateScenario) -> None:
    """Simulate a fault, for tests of SDKs."""
    simulation.run(participant, scenario)


def handle_publish_data_track(participant: Participant, request: PublishDataTrackRequest) -> None:
    """Begin to publish a data track."""
    info = participant.data_tracks.publish(request)
    participant.send(SignalResponse(publish_data_track_response=PublishDataTrackResponse(info=info)))


def handle_unpublish_data_track(participant: Participant, request: UnpublishDataTrackRequest) -> None:
    """End a data track."""
    info = participant.data_tracks.unpublish(request.pub_handle)
    participant.send(SignalResponse(unpublish_data_track_response=UnpublishDataTrackResponse(info=info)))


def handle_data_subscription(participant: Participant, request: UpdateDataSubscription) -> None:
    """Subscribe the client to data tracks, or unsubscribe it."""
    participant.data_tracks.update(request)


def handle_store_data_blob(participant: Participant, request: StoreDataBlobRequest) -> None:
    """Store what others may read."""
    participant.data_blobs.store(request.blob)
    response = StoreDataBlobResponse(request_id=request.request_id, key=request.blob.key)
    participant.send(SignalResponse(store_data_blob_response=response))


def handle_get_data_blob(participant: Participant, request: GetDataBlobRequest) -> None:
    """Tell what a participant has stored. Who is hidden has stored nothing, as far as others know."""
    owner = participant.room.participants.get(request.participant_identity)
    if not isinstance(owner, Participant) or (owner.hidden and owner is not participant):
        raise RequestRefused(RequestResponse.NOT_FOUND, "participant not found")
    response = GetDataBlobResponse(request_id=request.request_id, blob=owner.data_blobs.get(request.key))
    participant.send(SignalResponse(get_data_blob_response=response))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


HANDLERS: dict[str, Callable[[Participant, Any], None]] = {
    "offer": handle_offer,
    "answer": handle_answer,
    "trickle": handle_trickle,
    "add_track": handle_add_track,
    "mute": handle_mute,
    "subscription": handle_subscription,
    "track_setting": handle_track_setting,
    "leave": handle_leave,
    "subscription_permission": handle_subscription_permission,
    "sync_state": handle_sync_state,
    "simulate": handle_simulate,
    "ping": handle_ping,
    "ping_req": handle_ping_req,
    "update_metadata": handle_update_metadata,
    "update_audio_track": handle_update_audio_track,
    "update_video_track": handle_update_video_track,
    "publish_data_track_request": handle_publish_data_track,
    "unpublish_data_track_request": handle_unpublish_data_track,
    "update_data_subscription": handle_data_subscription,
    "store_data_blob_request": handle_store_data_blob,
    "get_data_blob_request": handle_get_data_blob,
}
"""Field of `SignalRequest` -> its handler."""
