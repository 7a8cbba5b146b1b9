"""Posts one message, signed as LiveKit signs: a token under an API key, in which the hash of the body stands.

aiohttp is imported with the first post, or by `prepare` before: a server without webhooks does not need it.
"""

import asyncio
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

from google.protobuf.json_format import MessageToJson

from signaling.config.api_keys import Keys
from signaling.http.tokens import sign_body
from signaling.webhooks.outbox import MAX_POSTS, Answer, Outcome, Post

if TYPE_CHECKING:
    from aiohttp import ClientSession

CONTENT_TYPE = "application/webhook+json"
USER_AGENT = "LiveKit"
"""Receivers and firewalls recognise webhooks by it."""
MAX_REDIRECTS = 5
KEEP_METHOD = (307, 308)
"""The redirects after which a request is repeated as it was (RFC 9110 section 15.4)."""
TOO_MANY_REQUESTS = 429
MAX_HEADER_BYTES = 8 * 1024
"""Bytes of one header, and of the status line, of an answer."""


class Sender:
    """Posts messages over connections that are kept open."""

    def __init__(self, key: Callable[[], tuple[str, Keys]]) -> None:
        """`key` returns the API key that signs, and all keys with their secrets."""
        self._key = key
        self._session: ClientSession | None = None

    def prepare(self) -> None:
        """Import the HTTP client now, and not when the first message is due."""
        import aiohttp  # noqa: F401

    async def post(self, post: Post) -> Answer:
        """Post a message, with a fresh signature."""
        import aiohttp

        body = MessageToJson(post.message, indent=None).encode()
        api_key, keys = self._key()
        if (secret := keys.get(api_key)) is None:
            return Answer(Outcome.REFUSED, f"there is no API key {api_key!r} to sign with")
        headers = {
            "Authorization": sign_body(api_key, secret, body),
            "Content-Type": CONTENT_TYPE,
            "User-Agent": USER_AGENT,
        }
        try:
            return await self._follow(post.url, body, headers, post.timeout_s)
        except TimeoutError:
            return Answer(Outcome.AGAIN, f"no answer within {post.timeout_s:.1f} s")
        except aiohttp.ClientSSLError as error:  # that of a certificate is a ValueError too, and may be mended
            return Answer(Outcome.AGAIN, str(error))
        # URLs may hold secrets, also those of redirects, so errors that repeat them are not told as they are.
        except (aiohttp.InvalidURL, ValueError):
            return Answer(Outcome.REFUSED, "not a URL to post to")
        except aiohttp.ClientResponseError as error:
            return Answer(Outcome.AGAIN, error.message or type(error).__name__)
        except (aiohttp.ClientError, OSError) as error:
            return Answer(Outcome.AGAIN, str(error) or type(error).__name__)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _follow(self, url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        """Post to `url`, and to where it redirects with 307 or 308, all within `timeout_s`."""
        import aiohttp

        async with asyncio.timeout(timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                target = without_user(url)
                async with self._opened().post(
                    target,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    proxy=proxy_for(target),
                    timeout=aiohttp.ClientTimeout(),
                ) as answer:
                    status, location = answer.status, answer.headers.get("Location", "")
                if status not in KEEP_METHOD or not location:
                    return judge(status)
                url = urljoin(url, location)
        return Answer(Outcome.REFUSED, f"more than {MAX_REDIRECTS} redirects")

    def _opened(self) -> "ClientSession":
        """Return the session. It keeps no cookies, and reads nobody's passwords from files."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=MAX_POSTS),
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        return self._session


def judge(status: int) -> Answer:
    """Return what an answer with this status means."""
    if 200 <= status < 300:
        return Answer(Outcome.DELIVERED)
    again = status >= 500 or status == TOO_MANY_REQUESTS
    return Answer(Outcome.AGAIN if again else Outcome.REFUSED, f"status {status}")


def without_user(url: str) -> str:
    """Return `url` without user name and password, whose place in the request the signature takes.

    Raises:
        ValueError: it is not the URL of a web server.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`); None: none."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)
