"""Does something for a participant that none of its own requests asks for.

Who calls it: the server API, and sessions without a WebSocket. An exception costs that participant and nobody else.
"""

from collections.abc import Callable
from typing import TypeVar

from signaling.participants.participant import Participant

Result = TypeVar("Result")


class WorkFailed(Exception):
    """The work raised something else than a refusal, and the participant was removed; or it had left before."""


def perform(participant: Participant, work: Callable[[], Result], refusal: type[Exception]) -> Result:
    """Return what `work` returns. An exception of type `refusal` is raised to the caller and changes nothing here.

    Raises:
        WorkFailed: there is no result.
    """
    outcome: list[Result] = []
    refused: list[Exception] = []

    def attempt() -> None:
        try:
            outcome.append(work())
        except refusal as error:
            refused.append(error)

    participant.room.guard(participant, attempt)
    if refused:
        raise refused[0]
    if not outcome:
        raise WorkFailed
    return outcome[0]
