"""An engine that only remembers what it was told, for tests of the peer connections."""

from typing import Any, cast

from sfu.engine import Engine, EngineError
from sfu.parameters import (
    Candidate,
    Codec,
    IceCredentials,
    LocalSubscription,
    LocalTransport,
    MediaParameters,
    PublishParameters,
    RemoteTransport,
    SubscribeParameters,
    SubscriptionId,
    TrackId,
    TransportId,
)
from signaling.sdp.peer_connection import AnsweringConnection, OfferingConnection

FINGERPRINT = ("sha-256", ":".join(["AB"] * 32))


class RecordingEngine:
    """`calls` holds (name, arguments...) in order; `full` makes publish and subscribe fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.full = False
        self._last = 0

    @property
    def engine(self) -> Engine:
        """Itself, for those who ask for the real one."""
        return cast("Engine", self)

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def last(self, name: str) -> tuple[Any, ...]:
        """The arguments of the last call of that name."""
        return next(call[1:] for call in reversed(self.calls) if call[0] == name)

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _local(self, transport: TransportId) -> LocalTransport:
        ice = IceCredentials(f"ours{self._next()}", "p" * 24)
        return LocalTransport(transport, ice, FINGERPRINT, (Candidate("1", 2130706431, "127.0.0.1", 7882),))

    def _room(self) -> None:
        if self.full:
            raise EngineError("the table is full")

    def open_transport(
        self, may_pause: bool = False, path_memory: int = 0, beside: TransportId | None = None
    ) -> LocalTransport:
        return self._local(TransportId(self._next()))

    def connect(self, transport: TransportId, remote: RemoteTransport) -> None:
        self.calls.append(("connect", transport, remote))

    def restart_ice(self, transport: TransportId) -> LocalTransport:
        self.calls.append(("restart_ice", transport))
        return self._local(transport)

    def set_media(self, transport: TransportId, media: MediaParameters) -> None:
        self.calls.append(("set_media", transport, media))

    def close_transport(self, transport: TransportId) -> None:
        self.calls.append(("close_transport", transport))

    def publish(self, transport: TransportId, parameters: PublishParameters) -> TrackId:
        self._room()
        self.calls.append(("publish", transport, parameters))
        return TrackId(self._next())

    def set_codecs(self, track: TrackId, codecs: frozenset[Codec]) -> None:
        self.calls.append(("set_codecs", track, codecs))

    def unpublish(self, track: TrackId) -> None:
        self.calls.append(("unpublish", track))

    def subscribe(self, track: TrackId, transport: TransportId, parameters: SubscribeParameters) -> LocalSubscription:
        self._room()
        self.calls.append(("subscribe", track, transport, parameters))
        number = self._next()
        return LocalSubscription(
            SubscriptionId(number), 10 * number, 10 * number + 1 if parameters.rtx_payload_type >= 0 else 0
        )

    def unsubscribe(self, subscription: SubscriptionId) -> None:
        self.calls.append(("unsubscribe", subscription))


def subscription_of(connection: AnsweringConnection | OfferingConnection, track_sid: str) -> SubscriptionId | None:
    """The engine's id of a track, while it is sent on a connection."""
    forwarding = connection.forwardings.get(track_sid)
    return forwarding.subscription if forwarding is not None else None
