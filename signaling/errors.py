"""What can go wrong with one request of one participant.

* `RequestRefused`: the peer asked for something it may not have or that makes no sense; it gets a `request_response`.
* `SessionEnded`: the peer cannot go on; it gets a `leave` with a reason and an action, and is removed.
"""

from livekit.protocol.models import DisconnectReason
from livekit.protocol.rtc import LeaveRequest, RequestResponse


class RequestRefused(Exception):
    """Answered by `request_response` with `reason` and this text; the session goes on."""

    def __init__(self, reason: RequestResponse.Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class SessionEnded(Exception):
    """Answered by `leave`; the participant is removed from its room."""

    def __init__(self, reason: DisconnectReason, action: LeaveRequest.Action, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.action = action
        self.text = text
