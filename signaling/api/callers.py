"""What calls by HTTP have in common: whose token they bring, and that others have their turn meanwhile.

Who calls it: the server API, statistics, and the endpoints of WHIP and WHEP.
"""

from collections import Counter

from starlette.datastructures import QueryParams
from starlette.requests import Request

from signaling.api.errors import ApiError
from signaling.config.api_keys import Keys
from signaling.http.join import JoinError, authenticate, query_of
from signaling.http.shares import ExcessiveUse, Share
from signaling.http.tokens import Claims


def query(request: Request) -> QueryParams:
    """Return the query of a request.

    Raises:
        ApiError: `malformed`: it has too many parameters.
    """
    try:
        return query_of(request)
    except JoinError as error:
        raise ApiError("malformed", error.text) from error


def bearer(request: Request, keys: Keys) -> Claims:
    """Return what the token of a request says.

    Raises:
        ApiError: there is none, or it is not valid.
    """
    parameters = query(request)
    try:
        return authenticate(parameters, request.headers.get("authorization", ""), keys)
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
