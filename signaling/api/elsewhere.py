"""Services that need programs beside the server: recording (Egress) and streams from elsewhere (Ingress).

There are none yet, so every call is answered as by a livekit-server without Redis, by which it would reach them.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from google.protobuf.message import Message
from livekit.protocol import egress, ingress

from signaling.api.errors import ApiError
from signaling.api.grants import Grant, may_manage_ingress, may_record
from signaling.api.twirp import Method

EGRESS_NOT_CONNECTED = "egress not connected (redis required)"
INGRESS_NOT_CONNECTED = "ingress not connected (redis required)"


def _refusing(text: str) -> Callable[[Any], NoReturn]:
    def refuse(request: Any) -> NoReturn:
        raise ApiError("internal", text)

    return refuse


def _method(request: type[Message], grant: Grant, text: str) -> Method:
    return Method(request, grant, _refusing(text))


EGRESS: dict[str, Method] = {
    name: _method(request, may_record, EGRESS_NOT_CONNECTED)
    for name, request in (
        ("StartEgress", egress.StartEgressRequest),
        ("StartRoomCompositeEgress", egress.RoomCompositeEgressRequest),
        ("StartWebEgress", egress.WebEgressRequest),
        ("StartParticipantEgress", egress.ParticipantEgressRequest),
        ("StartTrackCompositeEgress", egress.TrackCompositeEgressRequest),
        ("StartTrackEgress", egress.TrackEgressRequest),
        ("UpdateLayout", egress.UpdateLayoutRequest),
        ("UpdateStream", egress.UpdateStreamRequest),
        ("ListEgress", egress.ListEgressRequest),
        ("StopEgress", egress.StopEgressRequest),
    )
}
INGRESS: dict[str, Method] = {
    name: _method(request, may_manage_ingress, INGRESS_NOT_CONNECTED)
    for name, request in (
        ("CreateIngress", ingress.CreateIngressRequest),
        ("UpdateIngress", ingress.UpdateIngressRequest),
        ("ListIngress", ingress.ListIngressRequest),
        ("DeleteIngress", ingress.DeleteIngressRequest),
    )
}
