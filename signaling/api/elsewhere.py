"""Services that need programs beside the server: recording (Egress) and streams from elsewhere (Ingress).

There are none yet, so every call is answered as by a livekit-server without Redis, by which it would reach them.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from google.protobuf.message import Message
from livekit.protocol import egress, ingress

from signaling.api.errors import ApiError
from signaling.api.grants import Grant, may_manage_ingress, may_record
from signaling.api.twirp import Method

EGRESS_NOT_CONNECTED = "egress not connected (redis required)"
INGRESS_NOT_CONNECTED = "ingress not connected (redis required)"


def _refused(text: str, grant: Grant, requests: Mapping[str, type[Message]]) -> dict[str, Method]:
    """Return the calls that take these requests, all of which fail with `text`."""

    def refuse(request: Any) -> NoReturn:
        raise ApiError("internal", text)

    return {name: Method(request, grant, refuse) for name, request in requests.items()}


EGRESS = _refused(
    EGRESS_NOT_CONNECTED,
    may_record,
    {
        "StartEgress": egress.StartEgressRequest,
        "StartRoomCompositeEgress": egress.RoomCompositeEgressRequest,
        "StartWebEgress": egress.WebEgressRequest,
        "StartParticipantEgress": egress.ParticipantEgressRequest,
        "StartTrackCompositeEgress": egress.TrackCompositeEgressRequest,
        "StartTrackEgress": egress.TrackEgressRequest,
        "UpdateLayout": egress.UpdateLayoutRequest,
        "UpdateStream": egress.UpdateStreamRequest,
        "ListEgress": egress.ListEgressRequest,
        "StopEgress": egress.StopEgressRequest,
    },
)
INGRESS = _refused(
    INGRESS_NOT_CONNECTED,
    may_manage_ingress,
    {
        "CreateIngress": ingress.CreateIngressRequest,
        "UpdateIngress": ingress.UpdateIngressRequest,
        "ListIngress": ingress.ListIngressRequest,
        "DeleteIngress": ingress.DeleteIngressRequest,
    },
)
