"""Holds messages until they are posted: one order for each room, and nothing that a receiver does costs anybody else.

Every URL and room has a queue of its own, which a task empties. Queues are bounded in depth, and all together in
messages and bytes; whatever is dropped is counted. So a receiver that is dead or slow delays its own messages only.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog
from livekit.protocol.webhook import WebhookEvent

from signaling.webhooks.messages import ROOM_FINISHED, TRACK_PUBLISHED, TRACK_UNPUBLISHED

ABOUT_TRACKS = frozenset((TRACK_PUBLISHED, TRACK_UNPUBLISHED))
MAX_WAITING_MESSAGES = 20_000
"""Messages that wait for all receivers together. If others have all of that, a receiver may still have its share: this
divided by the number of receivers. So one that is dead takes nothing from those that work."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes of them, as protobuf, by the same rule. A participant's metadata may have half a MiB."""
MAX_ROOM_BYTES = 8 * 1024 * 1024
"""Bytes of the messages of one room that wait for one URL, so that a room with large metadata displaces no other's."""
MAX_POSTS = 32
"""Posts to one URL at a time."""
POST_TIMEOUT_S = 10.0
"""The time in which a receiver must answer. Later is as if it were unreachable."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""The pause after the first failed post, and the longest: each is twice as long as the one before."""
JITTER = 0.25
"""The share of a pause that is random, so that the queues of many rooms do not come back together."""

pause = asyncio.sleep
"""Waits between two posts of a message; tests have their own."""

log = structlog.get_logger("signaling.webhooks")


def shown(url: str) -> str:
    """Return `url` for logs, without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Outcome(Enum):
    """The result of a post."""

    DELIVERED = auto()
    AGAIN = auto()
    """The receiver was not reached or not able, which may pass."""
    REFUSED = auto()
    """The receiver will not take this message, however often it comes."""


class Answer(NamedTuple):
    """What became of a post, and why, for the log."""

    outcome: Outcome
    why: str = ""


class Post(NamedTuple):
    """A message on its way to a URL."""

    url: str
    message: WebhookEvent
    timeout_s: float


class Bounds(NamedTuple):
    """The bounds that an operator may set (LiveKit's `webhook.resource_url_notifier`)."""

    max_age_s: float
    """Older messages are dropped."""
    max_depth: int
    """The most messages of one room that wait for one URL."""


@dataclass(slots=True)
class _Waiting:
    queued_at: float
    size: int
    message: WebhookEvent


@dataclass(slots=True)
class _Receiver:
    """What is known of one URL."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_POSTS))
    lost: int = 0
    """Messages that were dropped, and that no later message has told of."""
    fails: bool = False
    """The last post failed, which is logged already."""
    messages: int = 0
    """Messages that wait for it."""
    bytes: int = 0
    """Bytes of them."""


class Outbox:
    """The messages that wait to be posted."""

    def __init__(
        self,
        post: Callable[[Post], Awaitable[Answer]],
        bounds: Callable[[], Bounds],
        clock: Callable[[], float],
        dropped: Counter[str],
    ) -> None:
        """Start empty.

        Args:
            post: posts one message; every exception but that of cancelling counts as `Outcome.AGAIN`.
            bounds: returns what holds now.
            clock: seconds, monotonic.
            dropped: counts dropped messages by reason.
        """
        self._post = post
        self._bounds = bounds
        self._clock = clock
        self._dropped = dropped
        self._receivers: dict[str, _Receiver] = {}
        self._queues: dict[tuple[str, str], deque[_Waiting]] = {}
        """(URL, room) -> its messages, oldest first; there is none without messages."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.messages = 0
        """Messages that wait or are being posted."""
        self.bytes = 0
        """Bytes of them."""

    def put(self, url: str, room: str, message: WebhookEvent) -> None:
        """Queue a message about a room for a URL. It is dropped if too much waits already."""
        queue = self._queues.get((url, room))
        receiver = self._receivers.setdefault(url, _Receiver())
        size = message.ByteSize()
        if queue is not None and self._is_full(queue, message.event, size):
            self._lose(url, message, "webhook_queue_full")
        elif self._is_beyond_memory(receiver, size):
            self._lose(url, message, "webhooks_beyond_memory")
        else:
            self._count(receiver, 1, size)
            waiting = _Waiting(self._clock(), size, message)
            if queue is not None:
                queue.append(waiting)
                return
            self._queues[url, room] = deque((waiting,))
            task = asyncio.get_running_loop().create_task(self._empty(url, room), name="webhooks")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self, within_s: float) -> None:
        """Wait until everything is posted, for `within_s` at most, and drop the rest."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=within_s)
        if self.messages:
            log.warning("webhooks are not delivered before the end", messages=self.messages)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _empty(self, url: str, room: str) -> None:
        """Post a queue's messages, one after the other, until there are none."""
        queue = self._queues[url, room]
        try:
            while queue:
                await self._deliver(url, queue[0])
                self._forget(url, queue.popleft())
        finally:
            del self._queues[url, room]
            for waiting in queue:  # cut off by the end of the server
                self._forget(url, waiting)
                self._dropped["webhook_unsent"] += 1

    def _is_full(self, queue: "deque[_Waiting]", event: str, size: int) -> bool:
        """Tell whether a message of this event and size must not wait too. Bytes do not bound the end of a room."""
        if len(queue) >= self._depth(event):
            return True
        return event != ROOM_FINISHED and size + sum(each.size for each in queue) > MAX_ROOM_BYTES

    def _depth(self, event: str) -> int:
        """Return how many messages may wait before one of this event is dropped.

        What a participant can cause again and again must not displace what others wait for: messages about tracks may
        fill half of a queue, and the one that a room has ended finds a place in a full one.
        """
        depth = self._bounds().max_depth
        if event == ROOM_FINISHED:
            return depth + 1
        return max(1, depth // 2) if event in ABOUT_TRACKS else depth

    def _is_beyond_memory(self, receiver: _Receiver, size: int) -> bool:
        """Tell whether there is no room for a message of this size: all have too much, and so has its receiver."""
        receivers = len(self._receivers)
        too_many = self.messages >= MAX_WAITING_MESSAGES and receiver.messages >= MAX_WAITING_MESSAGES // receivers
        too_large = self.bytes + size > MAX_WAITING_BYTES and receiver.bytes + size > MAX_WAITING_BYTES // receivers
        return too_many or too_large

    def _forget(self, url: str, waiting: _Waiting) -> None:
        self._count(self._receivers[url], -1, -waiting.size)

    def _count(self, receiver: _Receiver, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size
        receiver.messages += messages
        receiver.bytes += size

    async def _deliver(self, url: str, waiting: _Waiting) -> None:
        """Post a message until it is delivered, refused or too old."""
        receiver = self._receivers[url]
        message, pause_s = waiting.message, FIRST_PAUSE_S
        message.num_dropped, receiver.lost = receiver.lost, 0
        while True:
            async with receiver.slots:
                left_s = waiting.queued_at + self._bounds().max_age_s - self._clock()
                if left_s <= 0:
                    self._lose(url, message, "webhook_too_old")
                    return
                answer = await self._try(Post(url, message, min(left_s, POST_TIMEOUT_S)))
            self._note(url, receiver, answer)
            if answer.outcome is Outcome.DELIVERED:
                return
            if answer.outcome is Outcome.REFUSED:
                self._lose(url, message, "webhook_refused")
                return
            await pause(pause_s * (1 - JITTER * random.random()))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _try(self, post: Post) -> Answer:
        try:
            return await self._post(post)
        except Exception as error:
            log.exception("a webhook could not be posted", url=shown(post.url))
            return Answer(Outcome.AGAIN, repr(error))

    def _note(self, url: str, receiver: _Receiver, answer: Answer) -> None:
        """Log when a receiver begins to fail and when it works again, not each message."""
        fails = answer.outcome is not Outcome.DELIVERED
        if fails and not receiver.fails:
            log.warning("a webhook was not taken", url=shown(url), why=answer.why)
        elif receiver.fails and not fails:
            log.info("webhooks are taken again", url=shown(url))
        receiver.fails = fails

    def _lose(self, url: str, message: WebhookEvent, reason: str) -> None:
        """Drop a message, and tell the receiver of it by the number in a later one."""
        self._dropped[reason] += 1
        self._receivers[url].lost += message.num_dropped + 1
        log.debug("webhook dropped", url=shown(url), webhook=message.event, id=message.id, reason=reason)
