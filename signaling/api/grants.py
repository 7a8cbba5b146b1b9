"""Which calls a token allows: for each kind of grant a function of its claims and of the request.

LiveKit refuses every call without its grant as `unauthenticated`, so these functions say yes or no and nothing else.
"""

from collections.abc import Callable
from typing import Any

from signaling.http.tokens import Claims

Grant = Callable[[Claims, Any], bool]
"""A function that takes the claims of a token and the decoded request."""


def may_call_something(claims: Claims) -> bool:
    """Tell whether the token allows any call, which that of an ordinary participant does not."""
    video = claims.video
    may_manage = video.room_create or video.room_list or video.room_admin or video.room_record or video.ingress_admin
    return may_manage or claims.has_sip_grant("admin") or claims.has_sip_grant("call")


def may_create_rooms(claims: Claims, request: Any) -> bool:
    """Tell whether the token may create and delete rooms."""
    return claims.video.room_create


def may_list_rooms(claims: Claims, request: Any) -> bool:
    """Tell whether the token may list rooms."""
    return claims.video.room_list


def may_manage_room(claims: Claims, request: Any) -> bool:
    """Tell whether the token may manage the room that the request names."""
    return claims.video.room_admin and claims.video.room == request.room


def may_move_from_room(claims: Claims, request: Any) -> bool:
    """Tell whether the token may take participants of the request's room to its destination room."""
    return may_manage_room(claims, request) and claims.video.destination_room == request.destination_room


def may_record(claims: Claims, request: Any) -> bool:
    """Tell whether the token may record."""
    return claims.video.room_record


def may_manage_ingress(claims: Claims, request: Any) -> bool:
    """Tell whether the token may manage streams that come from elsewhere."""
    return claims.video.ingress_admin


def may_manage_sip(claims: Claims, request: Any) -> bool:
    """Tell whether the token may manage SIP trunks and dispatch rules."""
    return claims.has_sip_grant("admin")


def may_call_by_sip(claims: Claims, request: Any) -> bool:
    """Tell whether the token may make calls by SIP."""
    return claims.has_sip_grant("call")


def may_transfer_by_sip(claims: Claims, request: Any) -> bool:
    """Tell whether the token may transfer a call that is in the request's room."""
    video = claims.video
    return may_call_by_sip(claims, request) and video.room_admin and video.room == request.room_name
