"""Shares of the control thread: the time that the requests of one client may use while others wait.

Who calls it: `connection.py` around each request, calls by HTTP, and code that works for a client after its request. A
share is not a limit. A client's turn is charged only if somebody else had to wait for it. A client that has used up its
share waits until it has earned time again, or until nobody else has come for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

TURN_S = 0.001
"""How long one client is served before the others have their turn: about thirty pings, or one larger request."""
WINDOW_S = 0.1
SHARE = 0.2
"""The share of the control thread's time that each client has while others wait: 20 ms of each 100."""
MAX_EXCESS_S = 10.0
"""How long a client may be beyond its share without a pause before it is removed."""
POLLS = 3
"""Turns of the event loop after which every waiting client was served: one for its read, one for a task, one spare."""
MIN_PAUSE_S = 0.001


class ExcessiveUse(Exception):
    """A client was beyond its share for `MAX_EXCESS_S`, while others waited."""


ENTRANCE_S = 1.0
"""The control thread's time for the joins and resumes of one identity, which is enough for thirty ordinary ones in a
row. More must be earned at `SHARE` before the next one."""
SETTLED_AFTER = 1_000
"""The number of joins and resumes after which identities without debt are forgotten."""
MAX_CALLERS = 1_000
"""Callers by HTTP whose shares are remembered. Who has not called for longest is forgotten first, and begins anew."""


class Shares:
    """What the shares of all clients have in common."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """`clock` gives seconds, monotonic. `sleep` waits for such seconds; 0 is one turn of the event loop."""
        self.clock = clock
        self.sleep = sleep
        self.turns = 0
        """Requests and other events that were handled."""
        self.gate = asyncio.Lock()
        """Clients that had to wait go on one at a time, with turns of others in between."""

    def note(self) -> None:
        """Count a turn that no client's share pays for: a join or a resume."""
        self.turns += 1


class Share:
    """The share of one participant. It outlives its sockets, so that a resume gains nothing."""

    def __init__(self, shares: Shares) -> None:
        """Start with the credit of one whole window."""
        self._shares = shares
        self._turns = 0
        self._spent_s = 0.0
        self._credit_s = SHARE * WINDOW_S
        self._credited_at = shares.clock()
        self._excess_since: float | None = None
        self._exempt = False
        self._first = asyncio.Lock()
        """One request of this client waits beside those of other clients, and its others wait behind that one."""
        self._refused_at = float("-inf")

    @property
    def clock(self) -> Callable[[], float]:
        """The clock whose seconds `spend` takes."""
        return self._shares.clock

    @property
    def turn_is_over(self) -> bool:
        """Whether the client was served for `TURN_S` since it last gave way."""
        return self._spent_s >= TURN_S

    def note(self) -> None:
        """Count a request of this client, or an event of its media."""
        self._turns += 1
        self._shares.turns += 1

    def spend(self, seconds: float) -> None:
        """Charge the seconds that serving this client took."""
        if self._exempt:
            self._exempt = False
        else:
            self._spent_s += seconds

    @contextmanager
    def charged(self) -> Iterator[None]:
        """Charge what is done inside, also if it fails."""
        began = self.clock()
        try:
            yield
        finally:
            self.spend(self.clock() - began)

    def exempt(self) -> None:
        """Do not charge what is being done for this client now, because it belongs to its join."""
        self._exempt = True

    async def give_way(self) -> None:
        """Let the others have their turn; return when it is this client's again.

        Raises:
            ExcessiveUse: it was beyond its share for too long.
        """
        asked_at = self.clock()
        async with self._first:
            if asked_at <= self._refused_at:
                raise ExcessiveUse  # with the one behind which it waited
            if self.turn_is_over:
                await self._give_way()

    async def _give_way(self) -> None:
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
                self._excess_since, self._refused_at = None, now
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
        """Let every waiting client be served; return whether there was one."""
        others = self._others()
        for _ in range(POLLS):
            await self._shares.sleep(0)
        return self._others() != others

    def _settle(self, spent_s: float) -> None:
        """Charge a turn, and add what was earned meanwhile. The credit is at most that of one window."""
        now = self._shares.clock()
        earned_s = SHARE * (now - self._credited_at)
        self._credit_s = min(SHARE * WINDOW_S, self._credit_s + earned_s - spent_s)
        self._credited_at = now


class Callers:
    """The shares of those who ask by HTTP: of the server API, for statistics, by WHIP and WHEP.

    An API key and an identity are a caller, as for joins, and have one share for all of these. The tokens of an
    application's backend have no identity. So a participant that may manage its room uses none of its backend's share.
    """

    def __init__(self, shares: Shares) -> None:
        """Start without callers."""
        self._shares = shares
        self._of: dict[tuple[str, str], Share] = {}
        """API key and identity -> share, those that have not called for longest first."""

    def share(self, who: tuple[str, str]) -> Share:
        """Return the share of an API key and identity."""
        share = self._of.pop(who, None) or Share(self._shares)
        if len(self._of) >= MAX_CALLERS:
            del self._of[next(iter(self._of))]
        self._of[who] = share
        return share


class Entrances:
    """What the joins and resumes of each identity have used of the control thread's time.

    No share is charged for them, because each may be of a new participant. Without this bound, a client that joins
    again and again with the largest offer could use the whole thread.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """`clock` gives seconds, monotonic. `sleep` waits for such seconds."""
        self._clock = clock
        self._sleep = sleep
        self._earned_at: dict[tuple[str, str], float] = {}
        """(API key, identity) -> when it will have earned all time that it used."""
        self._charges = 0

    async def wait(self, key: tuple[str, str]) -> None:
        """Wait until an identity may join or resume. It need not wait unless its last ones took too much time.

        Raises:
            ExcessiveUse: it would have to wait for more than `MAX_EXCESS_S`.
        """
        while (seconds := self._earned_at.get(key, 0.0) - self._clock() - ENTRANCE_S / SHARE) > 0:
            if seconds > MAX_EXCESS_S:
                raise ExcessiveUse
            await self._sleep(seconds)

    def charge(self, key: tuple[str, str], seconds: float) -> None:
        """Charge the seconds that a join or resume took."""
        now = self._clock()
        self._charges += 1
        if self._charges >= SETTLED_AFTER:
            self._charges = 0
            self._earned_at = {each: at for each, at in self._earned_at.items() if at > now}
        self._earned_at[key] = max(now, self._earned_at.get(key, now)) + seconds / SHARE
