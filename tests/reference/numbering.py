"""Slow, obvious twins of sfu.media.send.sequence and sfu.media.send.pictures: every number ever decided is kept in a
dictionary."""

WINDOW = 512


class Numbering:
    """Input to output numbers where what is dropped on purpose leaves no gap."""

    def __init__(self, first: int, out_highest: int) -> None:
        self.first = first
        self.highest = first - 1
        self.next_out = out_highest + 1
        self.place: dict[int, int | None] = {}
        """Output number of each input up to the highest; None: dropped."""
        self.decided: set[int] = set()

    def _advance(self, sequence: int, missing_dropped: bool) -> None:
        for number in range(self.highest + 1, sequence):
            if missing_dropped:
                self.place[number] = None
                self.decided.add(number)
            else:
                self.place[number] = self.next_out
                self.next_out += 1
        self.highest = sequence

    def _late(self, sequence: int) -> bool:
        good = self.highest - sequence < WINDOW and sequence >= self.first and sequence not in self.decided
        if good:
            self.decided.add(sequence)
        return good

    def send(self, sequence: int) -> int | None:
        if sequence > self.highest:
            self._advance(sequence, False)
            self.place[sequence] = self.next_out
            self.next_out += 1
            self.decided.add(sequence)
            return self.place[sequence]
        return self.place[sequence] if self._late(sequence) else None

    def drop(self, sequence: int, same_frame: bool) -> None:
        if sequence <= self.highest:
            self._late(sequence)
            return
        before_dropped = self.highest >= self.first and self.place[self.highest] is None
        self._advance(sequence, same_frame and before_dropped)
        self.place[sequence] = None
        self.decided.add(sequence)


class Pictures:
    """VP8 picture ids; frames come in any order within half the circle. Unwrapped inside, modulo outside."""

    def __init__(self, first: int, out: int) -> None:
        self.highest = first
        self.place: dict[int, int | None] = {first: out}
        self.next_out = out + 1

    def _advance(self, picture: int) -> None:
        for number in range(self.highest + 1, picture):
            self.place[number] = self.next_out
            self.next_out += 1
        self.highest = picture

    def send(self, picture: int) -> int | None:
        """The output id (not wrapped); None for a frame that was dropped."""
        if picture > self.highest:
            self._advance(picture)
            self.place[picture] = self.next_out
            self.next_out += 1
        return self.place[picture]

    def drop(self, picture: int) -> None:
        if picture > self.highest:
            self._advance(picture)
            self.place[picture] = None
