"""What a client of WHIP or WHEP is told when its request fails: a status, and a text as problem details (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

from signaling.api.errors import ApiError
from signaling.http.join import JoinError

PROBLEM_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that fails: `status` is the HTTP status, `text` says why."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        """`headers` are those that this status needs."""
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """Return what the client is sent."""
        body = {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.text}
        return JSONResponse(body, self.status, self.headers, PROBLEM_TYPE)


def problem_of(error: JoinError | ApiError) -> Problem:
    """Return the problem of a refused join, or of a body or a turn that was refused as to a caller of the API."""
    # RFC 6750 section 3: a client without a good token is told which scheme is wanted.
    return Problem(error.status, error.text, {"WWW-Authenticate": "Bearer"} if error.status == 401 else None)
