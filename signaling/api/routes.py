"""The routes of the server API: all services over the rooms of this process."""

from starlette.routing import BaseRoute

from signaling.api.dispatch_service import DispatchService
from signaling.api.elsewhere import EGRESS, INGRESS
from signaling.api.registry import Registry
from signaling.api.room_service import RoomService
from signaling.api.sip_service import SipService
from signaling.api.twirp import Services, Twirp


def api_routes(rooms: Registry) -> list[BaseRoute]:
    """Return the routes of LiveKit's services. What they keep lives as long as these routes."""
    return Twirp(services(rooms), rooms.node).routes()


def services(rooms: Registry) -> Services:
    """Return all services with their calls."""
    return {
        "RoomService": RoomService(rooms).methods(),
        "AgentDispatchService": DispatchService(rooms).methods(),
        "SIP": SipService(rooms).methods(),
        "Egress": EGRESS,
        "Ingress": INGRESS,
    }
