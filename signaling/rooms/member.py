"""The protocol by which rooms, tracks and the node see participants.

The files of participants import those of rooms, and not the other way round. `signaling/participants/participant.py`
implements the protocol.
"""

from collections.abc import Mapping
from typing import Protocol

from livekit.protocol.models import DisconnectReason, ParticipantInfo
from livekit.protocol.rtc import LeaveRequest

from sfu.events import DataReceived
from sfu.parameters import TransportId
from signaling.allowance import Allowance
from signaling.rooms.capacity import Needs
from signaling.rooms.tracks import DataTrack, Publisher, Track


class Subscriber(Protocol):
    """The subscriptions of a participant to the tracks of its room."""

    @property
    def takes_all(self) -> bool:
        """Whether it will be subscribed to tracks that are published later."""

    def consider(self, track: Track) -> None:
        """Start or stop a subscription so that it matches choices, permissions and access."""

    def engine_tracks_changed(self, track: Track) -> None:
        """Adapt to a codec of the track that was added, removed or replaced."""

    def blocked_changed(self, track: Track) -> None:
        """Adapt to a track that the server muted, or that may be forwarded again."""

    def forget(self, track: Track) -> None:
        """Forget a track that has ended."""

    def repeat(self) -> None:
        """Tell a resumed client again which tracks it was refused, and which of those it may have now."""


class DataPart(Protocol):
    """The data tracks that a participant publishes, and those that it is subscribed to."""

    @property
    def published(self) -> Mapping[int, DataTrack]:
        """The tracks that it publishes, by the handle in its packets."""

    def consider(self, track: DataTrack) -> None:
        """Start or stop a subscription so that it matches choices, permissions and access."""

    def forget(self, track: DataTrack) -> None:
        """Forget a track that has ended."""

    def repeat(self) -> None:
        """Tell a resumed client again the handles of its subscriptions."""

    def forward(self, received: DataReceived) -> str:
        """Send a packet to the subscribers of its track; return why it was dropped, and an empty text if it was not."""


class Member(Publisher, Protocol):
    """One participant of a room."""

    @property
    def info(self) -> ParticipantInfo:
        """The description that clients are sent. Callers must not change it."""

    @property
    def knows_itself(self) -> bool:
        """Whether the client was already told the newest state of its own participant."""

    @property
    def joined(self) -> bool:
        """Whether the client has its join response."""

    @property
    def active(self) -> bool:
        """Whether media has been connected once."""

    @property
    def records(self) -> bool:
        """Whether it is a recorder, so that the room is being recorded."""

    @property
    def removed(self) -> bool:
        """Whether it has left."""

    @property
    def expires_at(self) -> float | None:
        """When to remove a client whose media failed, in seconds of the node's clock; None: it has not."""

    @property
    def update_allowance(self) -> Allowance:
        """Bounds the bytes that the room is told of it."""

    @property
    def subscriptions(self) -> Subscriber:
        """The participant's subscriptions to the room's tracks."""

    @property
    def data_tracks(self) -> DataPart:
        """The data tracks that it publishes, and those that it is sent."""

    @property
    def data_transport(self) -> TransportId:
        """The transport over which data packets for it go."""

    def needs(self, tracks: int) -> Needs:
        """Return the rows of the engine's tables that it has or wants, in a room with `tracks` tracks."""

    def set_disconnected(self, reason: DisconnectReason) -> None:
        """Enter the state DISCONNECTED, without telling anybody."""

    def leave(self, reason: DisconnectReason, action: LeaveRequest.Action) -> None:
        """Send `leave` to the client and close its socket."""

    def close(self) -> None:
        """Remove everything of it from the engine and from the node's maps."""

    def release_parts(self) -> None:
        """Drop its parts, after everything has ended."""

    def tick(self, now: float) -> None:
        """Check its timeouts. `now` is the node's clock, in seconds."""
