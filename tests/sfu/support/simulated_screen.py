"""Which pictures a simulated viewer shows, and when: as a decoder does, whole ones in order, and after a hole only from
a whole key frame on."""

DESCRIPTOR_BYTES = 6
"""Bytes of the VP8 payload descriptor as the simulated publisher writes it."""
KEPT = 2_000
"""Packets behind the newest one that may still be used."""


class Screen:
    """Takes the packets of one VP8 stream in any order."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        """When each picture was shown, ns."""
        self.next = -1
        """Extended number of the first packet that was not used; -1: none was yet."""
        self._packets: dict[int, tuple[bool, bool]] = {}
        """Extended number -> (first packet of a key frame, last packet of a frame)."""
        self._keys: set[int] = set()
        """Numbers at which key frames begin that were not shown."""
        self._highest = -1

    def take(self, sequence: int, payload: bytes, marker: bool, at: int) -> None:
        """A packet with a number (16 bits) came at `at`, for the first time or as a repair."""
        ahead = (sequence - self._highest) & 0xFFFF
        number = sequence if self._highest < 0 else self._highest + (ahead - 0x10000 if ahead & 0x8000 else ahead)
        self._highest = max(self._highest, number)
        if number < self.next or len(payload) <= DESCRIPTOR_BYTES:
            return
        key = bool(payload[0] & 0x10) and not payload[DESCRIPTOR_BYTES] & 1
        self._packets[number] = key, marker
        if len(self._packets) > KEPT:
            self._packets = {each: value for each, value in self._packets.items() if each > self._highest - KEPT // 2}
        if key:
            self._keys.add(number)
        self._show(at)
        if self._keys:
            self._jump(at)

    def _whole(self, first: int) -> int:
        """The last packet of the frame that begins with packet `first`, if all of it is there; else -1."""
        number = first
        while number in self._packets:
            if self._packets[number][1]:
                return number
            number += 1
        return -1

    def _jump(self, at: int) -> None:
        """Go on with the newest whole key frame, if the picture that is due is not there."""
        self._keys = {number for number in self._keys if number >= self.next}
        for number in sorted(self._keys, reverse=True):
            if self._whole(number) >= 0:
                self.next = number
                self._show(at)
                return

    def _show(self, at: int) -> None:
        while self.next >= 0 and (last := self._whole(self.next)) >= 0:
            for number in range(self.next, last + 1):
                self._packets.pop(number, None)
            self.next = last + 1
            self.shown.append(at)
