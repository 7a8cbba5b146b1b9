"""Shares of the control thread: what the requests of one client may take of it while others wait.

Who calls it: `connection.py` around each request, and whoever works for a client later than in its request. A share is
not a limit. What a client's turn took is charged only if somebody else came meanwhile and so had to wait; who has used
up what is its own then waits itself, until it has earned it again or nobody else has come for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable

TURN_S = 0.001
"""How long one client is served before the others get their turn: some thirty pings, or one larger request."""
WINDOW_S = 0.1
SHARE = 0.2
"""The part of the control thread's time that each client has while others wait: 20 ms of each 100."""
MAX_EXCESS_S = 10.0
"""A client that has been beyond its share for so long, without a pause, is sent away."""
POLLS = 3
"""Turns of the event loop after which every waiting client was served: one for a read, one for a task, one to spare."""
MIN_PAUSE_S = 0.001


class ExcessiveUse(Exception):
    """A client has wanted more than its share for `MAX_EXCESS_S`, while others waited."""


ENTRANCE_S = 1.0
"""Time of the control thread for the joins and resumes of one identity, enough for thirty ordinary ones in a row. What
is beyond that has to be earned at `SHARE` before the next one."""
SETTLED_AFTER = 1_000
"""Entrances after which those are forgotten that have been earned."""


class Shares:
    """What all clients of this process have in common."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """clock: seconds, monotonic. sleep: waits so many of its seconds; 0 is one turn of the event loop."""
        self.clock = clock
        self.sleep = sleep
        self.turns = 0
        """Requests and other events that were handled."""
        self.gate = asyncio.Lock()
        """Clients that had to wait go on one after the other, with the others in between."""

    def note(self) -> None:
        """Count a turn that no client's share pays for: a join or a resume."""
        self.turns += 1


class Share:
    """One participant's; it outlives the sockets, so that a resume earns nothing."""

    def __init__(self, shares: Shares) -> None:
        """Everything that belongs to one window is there to be used."""
        self._shares = shares
        self._turns = 0
        self._spent_s = 0.0
        self._credit_s = SHARE * WINDOW_S
        self._credited_at = shares.clock()
        self._excess_since: float | None = None
        self._exempt = False

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, as `spend` takes them."""
        return self._shares.clock

    @property
    def turn_is_over(self) -> bool:
        """Whether the client was served for `TURN_S` since it gave way."""
        return self._spent_s >= TURN_S

    def note(self) -> None:
        """A request of this client, or an event of its media, is served."""
        self._turns += 1
        self._shares.turns += 1

    def spend(self, seconds: float) -> None:
        """Serving this client took so long."""
        if self._exempt:
            self._exempt = False
        else:
            self._spent_s += seconds

    def exempt(self) -> None:
        """What is being done for this client now belongs to its join, and is not charged."""
        self._exempt = True

    async def give_way(self) -> None:
        """Let the others have their turn; return when it is this client's again.

        Raises:
            ExcessiveUse: it was beyond its share for too long.
        """
        spent_s, self._spent_s = self._spent_s, 0.0
        if not await self._others_came():
            self._excess_since = None
            return
        self._settle(spent_s)
        if self._credit_s >= 0:
            self._excess_since = None
            return
        await self._wait()
        async with self._shares.gate:
            await self._others_came()

    async def _wait(self) -> None:
        while self._credit_s < 0:
            now = self._shares.clock()
            if self._excess_since is None:
                self._excess_since = now
            elif now - self._excess_since >= MAX_EXCESS_S:
                self._excess_since = None
                raise ExcessiveUse
            others = self._others()
            pause_s = max(MIN_PAUSE_S, min(WINDOW_S, -self._credit_s / SHARE))
            await self._shares.sleep(pause_s)
            self._settle(0.0)
            if pause_s == WINDOW_S and self._others() == others:
                return  # nobody else is there

    def _others(self) -> int:
        return self._shares.turns - self._turns

    async def _others_came(self) -> bool:
        """Whether another client was waiting. When this returns, every client that was waiting has been served."""
        others = self._others()
        for _ in range(POLLS):
            await self._shares.sleep(0)
        return self._others() != others

    def _settle(self, spent_s: float) -> None:
        """Charge a turn; what was earned while it lasted counts for it, and of what is left no more than a window's."""
        now = self._shares.clock()
        earned_s = SHARE * (now - self._credited_at)
        self._credit_s = min(SHARE * WINDOW_S, self._credit_s + earned_s - spent_s)
        self._credited_at = now


class Entrances:
    """What the joins and resumes of each identity have taken: no share is charged for them, and each may be new.

    Whoever enters again and again with the largest offer would have all of the control thread otherwise.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """clock: seconds, monotonic. sleep: waits so many of its seconds."""
        self._clock = clock
        self._sleep = sleep
        self._earned_at: dict[tuple[str, str], float] = {}
        """(API key, identity) -> when everything that it took will have been earned."""
        self._charges = 0

    async def wait(self, key: tuple[str, str]) -> None:
        """Return when an identity may enter: at once, unless it has just done so too often or too expensively.

        Raises:
            ExcessiveUse: that would be in more than `MAX_EXCESS_S`.
        """
        while (seconds := self._earned_at.get(key, 0.0) - self._clock() - ENTRANCE_S / SHARE) > 0:
            if seconds > MAX_EXCESS_S:
                raise ExcessiveUse
            await self._sleep(seconds)

    def charge(self, key: tuple[str, str], seconds: float) -> None:
        """Entering took so long."""
        now = self._clock()
        self._charges += 1
        if self._charges >= SETTLED_AFTER:
            self._charges = 0
            self._earned_at = {each: at for each, at in self._earned_at.items() if at > now}
        self._earned_at[key] = max(now, self._earned_at.get(key, now)) + seconds / SHARE
