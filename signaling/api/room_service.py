"""LiveKit's RoomService: rooms, participants, their tracks and data.

Each call finds what it is about and uses the method of the room or participant that requests of clients use too.
"""

from collections.abc import Mapping
from functools import partial

from livekit.protocol import models, room, rtc

from signaling.api.elsewhere import EGRESS_NOT_CONNECTED
from signaling.api.encoding import Listing
from signaling.api.errors import ApiError, exceeds, invalid, room_not_found
from signaling.api.grants import may_create_rooms, may_list_rooms, may_manage_room, may_move_from_room
from signaling.api.limits import check_agent, check_attributes, check_metadata, check_name
from signaling.api.registry import Registry, create_room, find_participant, find_room, on_behalf_of
from signaling.api.twirp import Method
from signaling.config.options import LimitOptions
from signaling.participants import data
from signaling.records.nonces import NONCE_BYTES
from signaling.records.settings import UnknownPreset, with_preset
from signaling.rooms import calls

MAX_METHOD_BYTES = 64
"""UTF-8 bytes of the name of a method that a participant is called by, as in LiveKit's SDKs."""

RPC_CODES: dict[int, str] = {
    calls.RpcCode.CONNECTION_TIMEOUT: "canceled",
    calls.RpcCode.RESPONSE_TIMEOUT: "canceled",
    calls.RpcCode.RECIPIENT_DISCONNECTED: "unavailable",
    calls.RpcCode.REQUEST_TOO_LARGE: "invalid_argument",
    calls.RpcCode.UNSUPPORTED_METHOD: "invalid_argument",
    calls.RpcCode.RECIPIENT_NOT_FOUND: "not_found",
    calls.RpcCode.UNSUPPORTED_SERVER: "unimplemented",
    calls.RpcCode.UNSUPPORTED_VERSION: "unimplemented",
}
"""Code of a failed call to a participant -> Twirp's; others, which applications choose, are `internal`."""


class RoomService:
    """The calls of the service, over the rooms of this process."""

    def __init__(self, rooms: Registry) -> None:
        """`rooms` are those that the calls are about."""
        self._rooms = rooms

    def methods(self) -> Mapping[str, Method]:
        """Return all calls by name."""
        return {
            "CreateRoom": Method(room.CreateRoomRequest, may_create_rooms, self.create_room),
            "ListRooms": Method(room.ListRoomsRequest, may_list_rooms, self.list_rooms),
            "DeleteRoom": Method(room.DeleteRoomRequest, may_create_rooms, self.delete_room),
            "UpdateRoomMetadata": Method(room.UpdateRoomMetadataRequest, may_manage_room, self.update_room_metadata),
            "ListParticipants": Method(room.ListParticipantsRequest, may_manage_room, self.list_participants),
            "GetParticipant": Method(room.RoomParticipantIdentity, may_manage_room, self.get_participant),
            "RemoveParticipant": Method(room.RoomParticipantIdentity, may_manage_room, self.remove_participant),
            "UpdateParticipant": Method(room.UpdateParticipantRequest, may_manage_room, self.update_participant),
            "MutePublishedTrack": Method(room.MuteRoomTrackRequest, may_manage_room, self.mute_published_track),
            "UpdateSubscriptions": Method(room.UpdateSubscriptionsRequest, may_manage_room, self.update_subscriptions),
            "SendData": Method(room.SendDataRequest, may_manage_room, self.send_data),
            "PerformRpc": Method(room.PerformRpcRequest, may_manage_room, self.perform_rpc),
            "MoveParticipant": Method(room.MoveParticipantRequest, may_move_from_room, self.move_participant),
            "ForwardParticipant": Method(room.ForwardParticipantRequest, may_move_from_room, self.move_participant),
        }

    @property
    def _limits(self) -> LimitOptions:
        return self._rooms.node.config.limits

    # Rooms.

    def create_room(self, request: room.CreateRoomRequest) -> models.Room:
        """Create a room, or change the settings of one that is there."""
        if request.egress.HasField("room"):
            raise ApiError("internal", EGRESS_NOT_CONNECTED)
        check_metadata(request.metadata, self._limits)
        for agent in request.agents:
            check_agent(agent, self._limits)
        try:
            settings = with_preset(request, request.room_preset, self._rooms.node.config.room_presets)
        except UnknownPreset as error:
            raise invalid("unknown room configuration in create room request") from error
        return create_room(self._rooms, request.name, settings).info

    def list_rooms(self, request: room.ListRoomsRequest) -> Listing:
        """List the rooms with these names, or all. Names of rooms that do not exist are left out."""
        return Listing(room.ListRoomsResponse, self._rooms.list(frozenset(request.names)))

    def delete_room(self, request: room.DeleteRoomRequest) -> room.DeleteRoomResponse:
        """End a room and remove everybody."""
        if not self._rooms.close(request.room):
            raise room_not_found()
        return room.DeleteRoomResponse()

    def update_room_metadata(self, request: room.UpdateRoomMetadataRequest) -> models.Room:
        """Set a room's metadata, also to nothing."""
        check_metadata(request.metadata, self._limits)
        found = find_room(self._rooms, request.room)
        found.set_metadata(request.metadata)
        return found.info

    # Participants.

    def list_participants(self, request: room.ListParticipantsRequest) -> Listing:
        """List everybody in a room, hidden participants too; nobody, if it does not exist."""
        found = self._rooms.rooms.get(request.room)
        members = tuple(found.participants.values()) if found is not None else ()
        here = (member.info for member in members if not member.removed)
        return Listing(room.ListParticipantsResponse, here)

    def get_participant(self, request: room.RoomParticipantIdentity) -> models.ParticipantInfo:
        """Return the description of a participant."""
        return find_participant(self._rooms, request.room, request.identity).info

    def remove_participant(self, request: room.RoomParticipantIdentity) -> room.RemoveParticipantResponse:
        """Remove a participant, and refuse its older tokens if a time is named, also if it is not there now.

        Nobody can join by a name or an identity that is too long, so there is nothing to remember of these.
        """
        could_join = self._limits.hold_room_name(request.room) and self._limits.hold_identity(request.identity)
        if request.revoke_token_ts > 0 and could_join:
            self._rooms.node.revocations.revoke(request.room, request.identity, request.revoke_token_ts)
        participant = find_participant(self._rooms, request.room, request.identity)
        participant.room.remove(participant, models.PARTICIPANT_REMOVED)
        return room.RemoveParticipantResponse()

    def update_participant(self, request: room.UpdateParticipantRequest) -> models.ParticipantInfo:
        """Change a participant's name, metadata, attributes and permission."""
        check_name(request.name, self._limits)
        check_metadata(request.metadata, self._limits)
        check_attributes(request.attributes, self._limits)
        participant = find_participant(self._rooms, request.room, request.identity)
        permission = request.permission if request.HasField("permission") else None
        attributes = dict(request.attributes)

        def update() -> models.ParticipantInfo:
            participant.update(request.name, request.metadata, attributes, permission)
            return participant.info

        return on_behalf_of(participant, update)

    def mute_published_track(self, request: room.MuteRoomTrackRequest) -> room.MuteRoomTrackResponse:
        """Mute a track of a participant, or unmute it if the configuration allows that."""
        participant = find_participant(self._rooms, request.room, request.identity)
        if not request.muted and not participant.room.options.remote_unmute:
            raise ApiError("failed_precondition", "remote unmute not enabled")
        info = on_behalf_of(
            participant, lambda: participant.publishing.mute_by_server(request.track_sid, request.muted)
        )
        return room.MuteRoomTrackResponse(track=info)

    def update_subscriptions(self, request: room.UpdateSubscriptionsRequest) -> room.UpdateSubscriptionsResponse:
        """Subscribe a participant to tracks, or unsubscribe it."""
        participant = find_participant(self._rooms, request.room, request.identity)
        choice = rtc.UpdateSubscription(
            track_sids=request.track_sids, subscribe=request.subscribe, participant_tracks=request.participant_tracks
        )

        on_behalf_of(participant, partial(participant.subscriptions.update, choice))
        return room.UpdateSubscriptionsResponse()

    # Data.

    def send_data(self, request: room.SendDataRequest) -> room.SendDataResponse:
        """Send data to the participants of a room, or to those that are named."""
        if len(request.nonce) not in (0, NONCE_BYTES):
            text = f"nonce should be {NONCE_BYTES}-bytes or not present, got: {len(request.nonce)} bytes"
            raise invalid(text)
        found = find_room(self._rooms, request.room)
        user = models.UserPacket(
            payload=request.data,
            destination_sids=request.destination_sids,
            destination_identities=request.destination_identities,
            topic=request.topic if request.HasField("topic") else None,
            nonce=request.nonce,
        )
        packet = models.DataPacket(kind=request.kind, destination_identities=request.destination_identities, user=user)
        data.send_from_server(found, packet)
        return room.SendDataResponse()

    async def perform_rpc(self, request: room.PerformRpcRequest) -> room.PerformRpcResponse:
        """Call a method of a participant, and return its answer."""
        if not request.destination_identity:
            raise invalid("destination identity is required")
        if len(request.method.encode()) > MAX_METHOD_BYTES:
            raise exceeds("method length exceeds limits", MAX_METHOD_BYTES)
        if request.response_timeout_ms > calls.MAX_RESPONSE_TIMEOUT_S * 1000:
            raise exceeds("response timeout exceeds limits", int(calls.MAX_RESPONSE_TIMEOUT_S * 1000))
        find_room(self._rooms, request.room)
        participant = find_participant(self._rooms, request.room, request.destination_identity)
        method, payload, timeout_s = request.method, request.payload, request.response_timeout_ms / 1000
        del request  # with whatever else is in it: the call may take minutes
        try:
            payload = await self._rooms.node.calls.perform(participant, method, payload, timeout_s)
        except calls.RpcError as error:
            raise ApiError(RPC_CODES.get(error.code, "internal"), str(error)) from error
        return room.PerformRpcResponse(payload=payload)

    def move_participant(
        self, request: room.MoveParticipantRequest | room.ForwardParticipantRequest
    ) -> room.MoveParticipantResponse:
        """Refuse: a participant stays in its room, as in the open livekit-server."""
        if request.room == request.destination_room:
            text = "destination room cannot be the same as source room"
            raise ApiError("invalid_argument", text, {"argument": text})
        find_participant(self._rooms, request.room, request.identity)
        raise ApiError("unknown", "not implemented")
