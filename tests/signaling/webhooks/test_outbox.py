"""signaling/webhooks/outbox.py: order, retries and bounds, with a clock and a receiver of the test's own."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from livekit.protocol.webhook import WebhookEvent
from structlog.testing import capture_logs

from signaling.webhooks import outbox as module
from signaling.webhooks.outbox import MAX_POSTS, POST_TIMEOUT_S, Answer, Bounds, Outbox, Outcome, Post
from tests.signaling.support.call import settle

A, B = "http://a/", "http://b/"
DELIVERED, AGAIN, REFUSED = (Answer(outcome) for outcome in Outcome)


class Receivers:
    """Answers posts by URL, with what `answers` has for it, else at once with "delivered"."""

    def __init__(self) -> None:
        self.now = 0.0
        self.bounds = Bounds(max_age_s=30, max_depth=200)
        self.dropped: Counter[str] = Counter()
        self.posts: list[Post] = []
        self.answers: dict[str, list[Answer | Exception]] = {}
        self.hanging: dict[str, asyncio.Event] = {}
        self.pauses: list[float] = []
        self.outbox = Outbox(self.post, lambda: self.bounds, lambda: self.now, self.dropped)

    async def post(self, post: Post) -> Answer:
        copy = WebhookEvent()
        copy.CopyFrom(post.message)
        self.posts.append(post._replace(message=copy))
        if post.url in self.hanging:
            await self.hanging[post.url].wait()
        waiting = self.answers.get(post.url)
        answer = waiting.pop(0) if waiting else DELIVERED
        if isinstance(answer, Exception):
            raise answer
        return answer

    def seen(self, url: str = A) -> list[str]:
        return [post.message.id for post in self.posts if post.url == url]

    def put(self, *ids: str, url: str = A, room: str = "hall", event: str = "x") -> None:
        for each in ids:
            self.outbox.put(url, room, WebhookEvent(event=event, id=each))

    async def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now += pause_s
        await asyncio.sleep(0)


@pytest.fixture
async def receivers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receivers]:
    played = Receivers()
    monkeypatch.setattr(module, "JITTER", 0.0)
    monkeypatch.setattr(module, "pause", played.sleep)
    yield played
    await played.outbox.drain(0)


async def test_messages_of_a_room_are_posted_one_after_the_other(receivers: Receivers) -> None:
    receivers.hanging[A] = asyncio.Event()
    receivers.put("1", "2", "3")
    await settle()
    assert receivers.seen() == ["1"]
    receivers.hanging[A].set()
    await settle()
    assert receivers.seen() == ["1", "2", "3"]
    assert (receivers.outbox.messages, receivers.outbox.bytes, receivers.dropped) == (0, 0, {})


async def test_rooms_and_receivers_do_not_wait_for_each_other(receivers: Receivers) -> None:
    receivers.hanging[A] = asyncio.Event()
    receivers.put("1", "2")
    receivers.put("3", room="other")
    receivers.put("1", "2", url=B)
    await settle()
    assert (receivers.seen(A), receivers.seen(B)) == (["1", "3"], ["1", "2"])


async def test_what_may_pass_is_tried_again_with_the_same_id_and_growing_pauses(receivers: Receivers) -> None:
    receivers.answers[A] = [AGAIN, ValueError("bug"), AGAIN]
    receivers.put("1", "2")
    await settle(100)
    assert receivers.seen() == ["1", "1", "1", "1", "2"]
    assert receivers.pauses == [0.5, 1.0, 2.0]
    assert receivers.dropped == {}


async def test_a_refused_message_is_not_tried_again_and_the_next_one_tells_of_it(receivers: Receivers) -> None:
    receivers.answers[A] = [REFUSED, REFUSED]
    receivers.put("1", "2", "3", "4")
    await settle()
    assert receivers.seen() == ["1", "2", "3", "4"]
    assert [post.message.num_dropped for post in receivers.posts] == [0, 1, 2, 0]
    assert receivers.dropped == {"webhook_refused": 2}


async def test_a_message_that_is_too_old_is_dropped_and_later_ones_are_tried(receivers: Receivers) -> None:
    receivers.answers[A] = [AGAIN] * 7
    receivers.put("1")
    await settle(100)
    # 0.5, 1, 2, 4, 8, 8 and 8 seconds: the eighth try would be after 31.5 s
    assert receivers.seen() == ["1"] * 7
    assert receivers.dropped == {"webhook_too_old": 1}
    receivers.put("2")
    await settle()
    assert receivers.seen()[-1] == "2"
    assert receivers.posts[-1].message.num_dropped == 1


async def test_a_post_never_takes_longer_than_its_message_may_wait(receivers: Receivers) -> None:
    receivers.bounds = Bounds(max_age_s=3, max_depth=200)
    receivers.put("1")
    await settle()
    receivers.bounds = Bounds(max_age_s=300, max_depth=200)
    receivers.put("2")
    await settle()
    assert [post.timeout_s for post in receivers.posts] == [3, POST_TIMEOUT_S]


async def test_secrets_in_a_url_do_not_get_into_the_log(receivers: Receivers) -> None:
    url = "https://user:password@example.org/hooks?key=secret"
    receivers.answers[url] = [REFUSED, AGAIN, ValueError("bug")]
    with capture_logs() as logs:
        receivers.put("1", "2", url=url)
        await settle(100)
    assert [line["url"] for line in logs] == ["https://example.org/hooks"] * len(logs)
    assert {line["log_level"] for line in logs} == {"warning", "debug", "error", "info"}


async def test_a_full_queue_drops_what_is_new(receivers: Receivers) -> None:
    receivers.bounds = Bounds(max_age_s=30, max_depth=2)
    receivers.hanging[A] = asyncio.Event()
    receivers.put("1", "2", "3")
    receivers.put("4", room="other")
    assert receivers.dropped == {"webhook_queue_full": 1}
    receivers.hanging[A].set()
    await settle()
    assert sorted(receivers.seen()) == ["1", "2", "4"]


async def test_tracks_do_not_displace_who_leaves_nor_the_end_of_the_room(receivers: Receivers) -> None:
    receivers.bounds = Bounds(max_age_s=30, max_depth=4)
    receivers.hanging[A] = asyncio.Event()
    receivers.put("1", "2", "3", "4", event="track_published")
    receivers.put("5", "6", "7", event="participant_left")
    receivers.put("8", event="track_unpublished")
    receivers.put("9", event="room_finished")
    receivers.hanging[A].set()
    await settle()
    assert receivers.seen() == ["1", "2", "5", "6", "9"]
    assert receivers.posts[-1].message.num_dropped == 0  # the message before it told of them
    assert receivers.dropped == {"webhook_queue_full": 4}


@pytest.mark.parametrize(("constant", "bound"), [("MAX_WAITING_MESSAGES", 3), ("MAX_WAITING_BYTES", 20)])
async def test_all_queues_together_are_bounded(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch, constant: str, bound: int
) -> None:
    monkeypatch.setattr(module, constant, bound)
    receivers.hanging[A] = asyncio.Event()
    for number in range(5):
        receivers.put(str(number), room=str(number))
    assert receivers.dropped == {"webhooks_beyond_memory": 2}
    assert receivers.outbox.messages == 3
    receivers.hanging[A].set()
    await settle()
    receivers.put("5")
    await settle()
    assert receivers.seen()[-1] == "5"


@pytest.mark.parametrize(("constant", "bound"), [("MAX_WAITING_MESSAGES", 4), ("MAX_WAITING_BYTES", 24)])
async def test_a_dead_receiver_takes_no_room_from_one_that_works(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch, constant: str, bound: int
) -> None:
    monkeypatch.setattr(module, constant, bound)
    receivers.hanging[A] = asyncio.Event()
    for number in range(6):
        receivers.put(str(number), room=str(number))
    assert receivers.dropped == {"webhooks_beyond_memory": 2}
    for number in range(6):
        receivers.put(str(number), url=B, room=str(number))
        await settle()
    receivers.put("6", room="6")
    assert receivers.dropped == {"webhooks_beyond_memory": 3}
    assert receivers.seen(B) == ["0", "1", "2", "3", "4", "5"]
    receivers.hanging[A].set()
    await settle()
    assert len(receivers.seen(A)) == 4
    assert (receivers.outbox.messages, receivers.outbox.bytes) == (0, 0)


async def test_one_receiver_gets_a_bounded_number_of_posts_at_a_time(receivers: Receivers) -> None:
    receivers.hanging[A] = asyncio.Event()
    for number in range(MAX_POSTS + 5):
        receivers.put(str(number), room=str(number))
    await settle()
    assert len(receivers.seen()) == MAX_POSTS
    receivers.hanging[A].set()
    await settle(200)
    assert len(receivers.seen()) == MAX_POSTS + 5


async def test_the_end_waits_for_what_can_be_delivered(receivers: Receivers) -> None:
    receivers.put("1", "2", "3")
    await receivers.outbox.drain(5)
    assert receivers.seen() == ["1", "2", "3"]
    assert receivers.dropped == {}


async def test_the_end_does_not_wait_longer_than_it_should(receivers: Receivers) -> None:
    receivers.hanging[A] = asyncio.Event()
    receivers.put("1", "2")
    receivers.put("3", room="other")
    await receivers.outbox.drain(0.01)
    assert receivers.dropped == {"webhook_unsent": 3}
    assert (receivers.outbox.messages, receivers.outbox.bytes) == (0, 0)


async def test_a_room_with_large_messages_displaces_none_of_another(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROOM_BYTES", 1_000)
    receivers.hanging[A] = asyncio.Event()
    large = "m" * 400
    receivers.put(*(f"{number}{large}" for number in range(4)))
    receivers.put("end", event="room_finished")
    receivers.put("other", room="attic")
    assert receivers.dropped["webhook_queue_full"] == 2
    assert receivers.outbox.messages == 4
    receivers.hanging[A].set()
    await settle()
    assert [each[0] for each in receivers.seen()] == ["0", "1", "e", "o"]
