"""Facts about a call that tests wait for, in one line each: who sees, hears and reads whom."""

from typing import Any

from tests.clients.peers import BrowserPeer, Media, Peer, eventually


async def knows(peer: Peer, identity: str) -> None:
    """Wait until `peer` is told that somebody is in the room."""

    async def sees() -> bool:
        return identity in await peer.received()

    await eventually(sees, f"{peer.identity} sees {identity}")


async def misses(peer: Peer, identity: str) -> None:
    """Wait until `peer` is told that somebody has left."""

    async def sees_not() -> bool:
        return identity not in await peer.received()

    await eventually(sees_not, f"{peer.identity} no longer sees {identity}")


async def reads(peer: Peer, sender: str, text: str) -> None:
    """Wait for a message."""

    async def has_it() -> bool:
        return (sender, text) in await peer.messages()

    async def shortened() -> list[tuple[str, str]]:
        return [(sender, text[:40]) for sender, text in await peer.messages()]

    await eventually(has_it, f"{peer.identity} reads {text[:40]!r} of {sender}", detail=shortened)


async def media(peer: Peer, identity: str, source: str = "microphone") -> Media | None:
    """What `peer` knows and gets of one track."""
    return (await peer.received()).get(identity, {}).get(source)


async def packets(peer: Peer, identity: str) -> int:
    """How many packets `peer` has got of all that somebody publishes."""
    return sum(each.packets for each in (await peer.received()).get(identity, {}).values())


async def hears(peer: Peer, identity: str) -> Media:
    """Wait until sound of somebody arrives: packets that go on and decode to something that is not silence."""
    before: Media | None = None

    async def goes_on() -> Media | None:
        nonlocal before
        now = await media(peer, identity)
        earlier, before = before, now
        if now is None or earlier is None or now.energy <= earlier.energy or now.packets <= earlier.packets:
            return None
        return now

    heard: Media = await eventually(goes_on, f"{peer.identity} hears {identity}", detail=peer.received)
    return heard


async def sees(peer: Peer, identity: str, frames: int = 5) -> Media:
    """Wait for pictures of somebody."""

    async def shows() -> Media | None:
        now = await media(peer, identity, "camera")
        return now if now is not None and now.frames >= frames else None

    seen: Media = await eventually(shows, f"{peer.identity} sees a picture of {identity}", detail=peer.received)
    return seen


async def stands_still(peer: Peer, identity: str, source: str = "microphone") -> int:
    """Wait until no packets of a track arrive any more; returns how many did."""
    before = -1

    async def rests() -> bool:
        nonlocal before
        now = await media(peer, identity, source)
        earlier, before = before, now.packets if now is not None else 0
        return earlier == before

    await eventually(rests, f"{source} of {identity} stops at {peer.identity}", detail=peer.received)
    return before


async def had(peer: BrowserPeer, kind: str, *values: Any) -> list[Any]:
    """Wait for an event of livekit-client whose first arguments are `values`; returns the event."""

    async def happened() -> list[Any] | None:
        events = (await peer.state())["events"]
        return next((event for event in events if event[: len(values) + 1] == [kind, *values]), None)

    event: list[Any] = await eventually(happened, f"{peer.identity} has {kind} {values}", detail=peer.state)
    return event
