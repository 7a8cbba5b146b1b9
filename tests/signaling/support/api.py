"""Calls of the server API: LiveKit's client, and requests written by hand."""

from dataclasses import dataclass
from typing import Any

import httpx
import jwt
from google.protobuf.message import Message
from livekit.api import LiveKitAPI

from tests.signaling.support.call import Call

KEY, SECRET = "devkey", "secret"
ADMIN = {"roomAdmin": True, "room": "hall"}


def token(video: dict[str, Any] | None = None, secret: str = SECRET, **claims: Any) -> str:
    """A token of ten minutes with these grants."""
    body = {"iss": KEY, "sub": "backend", "exp": 2**31, "nbf": 0, "video": video or {}} | claims
    return jwt.encode(body, secret, algorithm="HS256")


@dataclass
class Api:
    """A running server, its rooms, and LiveKit's client."""

    call: Call
    url: str
    client: LiveKitAPI

    async def validate(self, bearer: str) -> httpx.Response:
        """Ask whether a token may join."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"{self.url}/rtc/validate", headers={"Authorization": f"Bearer {bearer}"})

    async def post(
        self,
        name: str,
        body: Message | bytes | dict[str, Any] = b"",
        video: dict[str, Any] | None = None,
        *,
        bearer: str | None = None,
        headers: dict[str, str] | None = None,
        method: str = "POST",
        prefix: str = "",
    ) -> httpx.Response:
        """Make one call. A dictionary is sent as JSON. Without `video` and `bearer` there is no token."""
        sent = {"Content-Type": "application/json" if isinstance(body, dict) else "application/protobuf"}
        given = bearer or (token(video) if video is not None else "")
        if given:
            sent["Authorization"] = f"Bearer {given}"
        url = f"{self.url}{prefix}/twirp/livekit.{name}"
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            sent |= headers or {}
            if isinstance(body, dict):
                return await client.request(method, url, json=body, headers=sent)
            content = body.SerializeToString() if isinstance(body, Message) else body
            return await client.request(method, url, content=content, headers=sent)
