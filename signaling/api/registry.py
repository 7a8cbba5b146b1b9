"""What calls need of the rooms of this process, and how they find a room or a participant."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

from livekit.protocol import models

from signaling.api.errors import ApiError, participant_not_found, refused, room_not_found
from signaling.api.limits import check_room_name
from signaling.config.configuration import RoomOptions
from signaling.errors import RequestRefused, TooManyRooms
from signaling.participants.guarded import Result, WorkFailed, perform
from signaling.participants.participant import Participant
from signaling.records.settings import RoomSettings
from signaling.rooms.node import Node
from signaling.rooms.room import Room


class Registry(Protocol):
    """The part of `signaling.registry.Rooms` that the API uses."""

    @property
    def node(self) -> Node:
        """What all rooms share."""

    @property
    def rooms(self) -> Mapping[str, Room]:
        """The rooms by name."""

    def create(self, name: str, options: RoomOptions | None = None, settings: RoomSettings | None = None) -> Room:
        """Return the room of this name with these settings. A missing one is created.

        Raises:
            TooManyRooms: there is no place for it.
            TooMuchKept: rooms keep too much already.
            ValueError: the name is too long.
        """

    def list(self, names: Collection[str] = ()) -> Iterator[models.Room]:
        """Yield the descriptions of the rooms with these names, or of all, each when it is asked for."""

    def close(self, name: str) -> bool:
        """End a room and remove everybody; return False if there is no room of this name."""


def create_room(rooms: Registry, name: str, settings: RoomSettings | None = None) -> Room:
    """Return the room of this name with these settings. A missing one is created.

    Raises:
        ApiError: the name is too long, or there are too many rooms.
        TooMuchKept: rooms keep too much already.
    """
    check_room_name(name, rooms.node.config.limits)
    try:
        return rooms.create(name, settings=settings)
    except TooManyRooms as error:
        raise ApiError("resource_exhausted", "too many rooms") from error


def find_room(rooms: Registry, name: str) -> Room:
    """Return a room.

    Raises:
        ApiError: `not_found`.
    """
    room = rooms.rooms.get(name)
    if room is None:
        raise room_not_found()
    return room


def find_participant(rooms: Registry, name: str, identity: str) -> Participant:
    """Return a participant of the room with this name.

    Raises:
        ApiError: `not_found`: there is no such room or participant.
    """
    room = rooms.rooms.get(name)
    member = room.participants.get(identity) if room is not None else None
    if not isinstance(member, Participant):
        raise participant_not_found()
    return member


def on_behalf_of(participant: Participant, work: Callable[[], Result]) -> Result:
    """Do something with a participant. An exception removes it and nothing else, as with its own requests.

    Raises:
        ApiError: the work was refused, or failed.
    """
    try:
        return perform(participant, work, RequestRefused)
    except RequestRefused as error:
        raise refused(error) from error
    except WorkFailed as error:
        raise ApiError("internal", "the participant could not be served and was removed") from error
