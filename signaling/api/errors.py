"""The errors of API calls: Twirp's codes, and the HTTP status of each (Twirp wire protocol, "Error Codes")."""

from collections.abc import Mapping

from livekit.protocol.rtc import RequestResponse

from signaling.errors import RequestRefused

STATUS: dict[str, int] = {
    "canceled": 408,
    "invalid_argument": 400,
    "malformed": 400,
    "deadline_exceeded": 408,
    "not_found": 404,
    "bad_route": 404,
    "already_exists": 409,
    "unauthenticated": 401,
    "resource_exhausted": 429,
    "failed_precondition": 412,
    "unimplemented": 501,
    "internal": 500,
    "unknown": 500,
    "unavailable": 503,
}
"""Code -> HTTP status."""
TOO_LARGE = 413
"""The HTTP status of a body that is too long, for which Twirp has no code of its own."""
PERMISSION_DENIED = "permissions denied"
"""LiveKit's text for a token or a grant that is missing."""

_REFUSALS: dict[RequestResponse.Reason, str] = {RequestResponse.NOT_FOUND: "not_found"}
"""Reason -> Twirp's code; the others are faults of the request."""


class ApiError(Exception):
    """A call is refused: `code` is Twirp's, `text` says why, and `meta` names the argument if one is at fault."""

    def __init__(self, code: str, text: str, meta: Mapping[str, str] | None = None, status: int = 0) -> None:
        """`status` is the HTTP status if it is not the code's own."""
        super().__init__(text)
        self.code = code
        self.text = text
        self.meta = dict(meta or {})
        self.status = status or STATUS[code]

    @property
    def body(self) -> dict[str, object]:
        """The JSON that the caller gets."""
        return {"code": self.code, "msg": self.text} | ({"meta": self.meta} if self.meta else {})


def unauthenticated() -> ApiError:
    """Return the error of a call without a token, or with one that does not allow it."""
    return ApiError("unauthenticated", PERMISSION_DENIED)


def invalid(text: str) -> ApiError:
    """Return the error of a request that makes no sense."""
    return ApiError("invalid_argument", text)


def exceeds(argument: str, limit: int) -> ApiError:
    """Return the error of an argument that is longer than `limit`, in LiveKit's form."""
    return ApiError("invalid_argument", f"{argument} {limit}", {"argument": argument})


def room_not_found() -> ApiError:
    """Return the error of a room that does not exist."""
    return ApiError("not_found", "requested room does not exist")


def participant_not_found() -> ApiError:
    """Return the error of a participant, or of its room, that does not exist."""
    return ApiError("not_found", "participant does not exist")


def refused(error: RequestRefused) -> ApiError:
    """Return the error of a request that would be refused to a client for the same reason."""
    meta = {"argument": error.text} if error.reason == RequestResponse.LIMIT_EXCEEDED else None
    return ApiError(_REFUSALS.get(error.reason, "invalid_argument"), error.text, meta)
