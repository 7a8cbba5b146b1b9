"""Tells applications what happens in rooms: the listener that makes messages and queues them.

Who calls it: `registry.py` subscribes it to the events of rooms, and stops it after the last of them.
"""

from livekit.protocol.webhook import WebhookEvent

from signaling.config.options import WebhookOptions
from signaling.rooms.events import RoomEvent
from signaling.rooms.node import Node
from signaling.webhooks.messages import Messages
from signaling.webhooks.outbox import Bounds, Outbox
from signaling.webhooks.sender import Sender

DRAIN_S = 5.0
"""How long the end of the server waits for messages to be posted."""


class Webhooks:
    """The webhooks of a server, by the configuration that holds at each moment."""

    def __init__(self, node: Node) -> None:
        """Subscribe to the events of the node's rooms."""
        self._node = node
        self._messages = Messages()
        self._sender = Sender(lambda: (self._options.api_key, node.config.keys))
        self._outbox = Outbox(self._sender.post, self._bounds, lambda: node.clock(), node.dropped)
        node.events.subscribe(self.tell)

    def prepare(self) -> None:
        """Load what the first message will need, if there are receivers."""
        if self._options.urls:
            self._sender.prepare()

    def tell(self, event: RoomEvent) -> None:
        """Queue the messages about an event for all receivers."""
        options = self._options
        if not options.urls:
            self._messages.note(event)
            return
        for message in self._messages.of(event, options.full_room):
            if options.allows(message.event):
                for url in options.urls:
                    own = WebhookEvent()
                    own.CopyFrom(message)
                    self._outbox.put(url, event.room.name, own)

    async def stop(self) -> None:
        """Wait for a short time until everything is posted, and close the connections."""
        await self._outbox.drain(DRAIN_S)
        await self._sender.close()

    @property
    def _options(self) -> WebhookOptions:
        return self._node.config.webhook

    def _bounds(self) -> Bounds:
        return Bounds(self._options.max_age_s, self._options.max_depth)
