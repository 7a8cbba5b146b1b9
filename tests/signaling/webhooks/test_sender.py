"""signaling/webhooks/sender.py: real posts to livekit-api's receiver, and to receivers that do worse."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from signaling.config.api_keys import hide
from signaling.webhooks.outbox import Answer, Outcome, Post
from signaling.webhooks.sender import MAX_REDIRECTS, Sender, judge, proxy_for, without_user
from tests.signaling.support.authority import Authority
from tests.signaling.support.receiver import Receiver, receiving

KEYS = hide({"devkey": "secret", "other": "s" * 32})
EVENT = WebhookEvent(
    event="participant_joined",
    id="EV_1",
    created_at=1_800_000_000,
    room=models.Room(name="hall", metadata="d\u00e9j\u00e0 vu \U0001f600"),
    participant=models.ParticipantInfo(identity="ann", state=models.ParticipantInfo.ACTIVE),
)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made = Sender(lambda: ("devkey", KEYS))
    yield made
    await made.close()


def post(url: str, timeout_s: float = 10) -> Post:
    return Post(url, EVENT, timeout_s)


async def test_livekits_receiver_verifies_and_reads_a_message(receiver: Receiver, sender: Sender) -> None:
    assert (await sender.post(post(receiver.url))).outcome is Outcome.DELIVERED
    assert receiver.events == [EVENT]
    headers = receiver.requests[0].headers
    assert headers["User-Agent"] == "LiveKit"
    assert headers["Content-Type"] == "application/webhook+json"
    claims = jwt.decode(headers["Authorization"], "secret", algorithms=["HS256"])
    assert (claims["iss"], set(claims)) == ("devkey", {"iss", "nbf", "exp", "sha256"})
    assert claims["exp"] - claims["nbf"] < 600


async def test_json_has_livekits_names_and_numbers(receiver: Receiver, sender: Sender) -> None:
    bodies = []

    async def keep(request: web.Request) -> web.Response:
        bodies.append(json.loads(await request.read()))
        return web.Response()

    receiver.answers = [keep]
    await sender.post(post(receiver.url))
    (body,) = bodies
    assert (body["event"], body["id"], body["createdAt"]) == ("participant_joined", "EV_1", "1800000000")
    assert body["participant"] == {"identity": "ann", "state": "ACTIVE"}
    assert body["room"]["metadata"] == "d\u00e9j\u00e0 vu \U0001f600"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (301, Outcome.REFUSED),
        (302, Outcome.REFUSED),
        (304, Outcome.REFUSED),
        (307, Outcome.REFUSED),  # without a place to go
        (400, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (422, Outcome.REFUSED),
        (429, Outcome.AGAIN),
        (500, Outcome.AGAIN),
        (503, Outcome.AGAIN),
    ],
)
async def test_an_answer_says_whether_to_try_again(
    receiver: Receiver, sender: Sender, status: int, outcome: Outcome
) -> None:
    receiver.answers = [status]
    assert (await sender.post(post(receiver.url))).outcome is outcome


async def test_a_redirect_that_keeps_the_method_is_followed_with_the_signature(
    receiver: Receiver, sender: Sender
) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/moved"})

    async def further(_: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": receiver.url.replace("127.0.0.1", "localhost")})

    receiver.answers = [elsewhere, further]
    assert (await sender.post(post(receiver.url))).outcome is Outcome.DELIVERED
    assert receiver.events == [EVENT]
    assert [request.path for request in receiver.requests] == ["/hooks", "/moved", "/hooks"]


async def test_redirects_have_an_end(receiver: Receiver, sender: Sender) -> None:
    async def round_and_round(_: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": "/hooks"})

    receiver.answers = [round_and_round] * (MAX_REDIRECTS + 1)
    answer = await sender.post(post(receiver.url))
    assert answer == Answer(Outcome.REFUSED, f"more than {MAX_REDIRECTS} redirects")
    assert len(receiver.requests) == MAX_REDIRECTS + 1


async def test_redirects_do_not_give_a_receiver_more_time(receiver: Receiver, sender: Sender) -> None:
    async def slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response(status=308, headers={"Location": "/hooks"})

    receiver.answers = [slowly] * (MAX_REDIRECTS + 1)
    assert (await sender.post(post(receiver.url, timeout_s=0.5))).outcome is Outcome.AGAIN


@pytest.mark.parametrize("place", ["ftp://u:hush@example.org/?k=hush", "http://u:hush@[/?k=hush"])
async def test_an_answer_tells_no_secrets_of_a_url(receiver: Receiver, sender: Sender, place: str) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": place})

    receiver.answers = [elsewhere]
    answer = await sender.post(post(receiver.url))
    assert answer.outcome is Outcome.REFUSED
    assert "hush" not in answer.why


async def test_nonsense_tells_no_secrets_of_a_url(sender: Sender) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 nonsense\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await sender.post(post(f"http://127.0.0.1:{port}/?k=hush"))
    assert answer.outcome is Outcome.AGAIN
    assert answer.why
    assert "hush" not in answer.why


@pytest.mark.parametrize("place", ["ftp://example.org/", "file:///etc/passwd", "http://["])
async def test_a_redirect_to_something_else_is_refused(receiver: Receiver, sender: Sender, place: str) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": place})

    receiver.answers = [elsewhere]
    assert (await sender.post(post(receiver.url))).outcome is Outcome.REFUSED


async def test_a_receiver_that_hangs_is_tried_again(receiver: Receiver, sender: Sender) -> None:
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    receiver.answers = [hang]
    answer = await sender.post(post(receiver.url, timeout_s=0.2))
    release.set()
    assert answer.outcome is Outcome.AGAIN
    assert "0.2 s" in answer.why


async def test_a_receiver_that_is_not_there_or_speaks_nonsense_is_tried_again(sender: Sender) -> None:
    async def nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await sender.post(post(f"http://127.0.0.1:{port}/"))).outcome is Outcome.AGAIN
    server.close()
    await server.wait_closed()
    assert (await sender.post(post(f"http://127.0.0.1:{port}/"))).outcome is Outcome.AGAIN
    assert (await sender.post(post("http://nowhere.invalid/"))).outcome is Outcome.AGAIN


async def test_a_receiver_whose_certificate_is_not_trusted_is_tried_again(sender: Sender, tmp_path: Path) -> None:
    async def nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    files = Authority().write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert_file, files.key_file)
    async with await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await sender.post(post(f"https://127.0.0.1:{port}/?k=hush"))
    assert answer.outcome is Outcome.AGAIN
    assert "certificate" in answer.why
    assert "hush" not in answer.why


async def test_a_large_answer_is_not_read(receiver: Receiver, sender: Sender) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        except ConnectionError:
            return response

    receiver.answers = [flood]
    assert (await sender.post(post(receiver.url))).outcome is Outcome.DELIVERED


async def test_user_and_password_of_a_url_do_not_take_the_signatures_place(receiver: Receiver, sender: Sender) -> None:
    url = receiver.url.replace("://", "://user:password@")
    assert (await sender.post(post(url))).outcome is Outcome.DELIVERED
    assert receiver.events == [EVENT]


async def test_each_post_is_signed_anew_with_the_key_that_holds(receiver: Receiver) -> None:
    key = "devkey"
    sender = Sender(lambda: (key, KEYS))
    try:
        await sender.post(post(receiver.url))
        key = "gone"
        answer = await sender.post(post(receiver.url))
    finally:
        await sender.close()
    assert (answer.outcome, len(receiver.events)) == (Outcome.REFUSED, 1)


def test_proxies_are_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "internal.example")
    assert proxy_for("http://example.org/x") == "http://proxy:3128"
    assert proxy_for("http://internal.example:8000/x") is None
    assert proxy_for("https://example.org/x") is None


@given(st.integers(100, 599))
def test_every_status_has_a_meaning(status: int) -> None:
    assert judge(status).outcome in Outcome


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_value_error(text: str) -> None:
    try:
        url = without_user(text)
    except ValueError:
        return
    assert url.lower().startswith("http")
