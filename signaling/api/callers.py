"""The shares of the control thread that callers of the API have.

An API key and an identity are a caller, as for joins. The tokens of an application's backend have no identity. So a
participant that may manage its room uses none of its backend's share.
"""

from collections import Counter

from starlette.requests import Request

from signaling.api.errors import ApiError
from signaling.config.api_keys import Keys
from signaling.http.join import JoinError, authenticate
from signaling.http.shares import ExcessiveUse, Share, Shares
from signaling.http.tokens import Claims

MAX_CALLERS = 1_000
"""Callers whose shares are remembered. Who has not called for longest is forgotten first, and begins anew."""


def bearer(request: Request, keys: Keys) -> Claims:
    """Return what the token of a request says.

    Raises:
        ApiError: there is none, or it is not valid.
    """
    try:
        return authenticate(request.query_params, request.headers.get("authorization", ""), keys)
    except JoinError as error:
        raise ApiError("unauthenticated", error.text) from error


async def wait_for_turn(share: Share, dropped: Counter[str]) -> None:
    """Let others have their turn if this caller's is over.

    Raises:
        ApiError: it has wanted too much for too long, which is counted.
    """
    if not share.turn_is_over:
        return
    try:
        await share.give_way()
    except ExcessiveUse as error:
        dropped["api_calls_beyond_their_share"] += 1
        raise ApiError("resource_exhausted", "too many requests") from error


class Callers:
    """The shares of all callers."""

    def __init__(self, shares: Shares) -> None:
        """`shares` are the node's."""
        self._shares = shares
        self._of: dict[tuple[str, str], Share] = {}
        """API key and identity -> share, those that have not called for longest first."""

    def share(self, claims: Claims) -> Share:
        """Return the share of the bearer of a token."""
        share = self._of.pop(claims.who, None) or Share(self._shares)
        if len(self._of) >= MAX_CALLERS:
            del self._of[next(iter(self._of))]
        self._of[claims.who] = share
        return share
