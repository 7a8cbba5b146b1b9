"""The errors of a participant's requests.

* `RequestRefused`: the request is not allowed or cannot be done. The client gets a `request_response`.
* `SessionEnded`: the session cannot go on. The client gets a `leave` with a reason and an action, and is removed.
"""

from livekit.protocol.models import DisconnectReason
from livekit.protocol.rtc import LeaveRequest, RequestResponse


class RequestRefused(Exception):
    """A request is refused. It is answered by `request_response` with this reason and text; the session goes on."""

    def __init__(self, reason: RequestResponse.Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class TooManyRooms(Exception):
    """No more rooms can be created now."""


class TooMuchKept(Exception):
    """A room cannot keep what an application wants it to, because rooms keep too much already."""


class SessionEnded(Exception):
    """A session ends. The client gets a `leave`, and the participant is removed from its room."""

    def __init__(self, reason: DisconnectReason, action: LeaveRequest.Action, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.action = action
        self.text = text
