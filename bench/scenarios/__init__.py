"""Scenarios: TOML files beside this one, and the participants, choices and changes that they describe."""

import random
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from bench.generator.recording import patterns
from bench.plans import Layer, Plan, TrackPlan

_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
FOLDER = Path(__file__).parent
UNITS = ("viewers", "participants", "rooms")
VIDEOS = ("", "single", "simulcast", "pattern")
DATA = ("", "reliable", "lossy")
MESSAGE_BYTES = (16, 200_000)
"""The least and the most bytes of a message: it begins with its send time and number, and clients accept this much."""
AUDIO_PACKETS_PER_SECOND, AUDIO_BYTES = 50, 100
VIDEO_BYTES = 1200
SINGLE = (Layer("", 230, VIDEO_BYTES),)
"""About 2.2 Mbit/s."""
SIMULCAST = (Layer("q", 20, VIDEO_BYTES), Layer("h", 60, VIDEO_BYTES), Layer("f", 230, VIDEO_BYTES))
"""320x180, 640x360 and 1280x720, at the bit rates of LiveKit's clients."""
MAX_FRAMES_PER_SECOND = 120
QUALITIES = ("LOW", "MEDIUM", "HIGH")
AUDIO = TrackPlan("audio", (Layer("", AUDIO_PACKETS_PER_SECOND, AUDIO_BYTES),), frames_per_second=0)


class BadScenario(ValueError):
    """A scenario's file is malformed; the text names file and key."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A viewer asks for a layer of a publisher's video."""

    viewer: str
    publisher: str
    quality: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change during the window: a choice, or a participant that mutes or unmutes."""

    at_s: float
    """Seconds after the begin of the window."""
    choice: Choice | None = None
    participant: str = ""
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `n` counts what `unit` says."""

    name: str
    title: str
    unit: str
    """`viewers` of one room with `publishers`, `participants` of one room (all publish), or `rooms` of `room_size`."""
    n: int
    seconds: float
    """Seconds of the window. Warm-up and drain come in addition."""
    loss: float = 0.0
    """The share of the media packets that the generator drops on arrival and requests again."""
    publishers: int = 1
    room_size: int = 4
    audio: bool = False
    video: str = ""
    """`single` layer, `simulcast`, a `pattern`, or empty: no video."""
    frames_per_second: int = 30
    """Frames of video per second. Packets of a frame leave together; 0: packets are evenly spread."""
    pattern: str = ""
    """For `pattern`: the packets that are sent over and over, `equal` ones or the name of a recording."""
    per_burst: int = 1
    """For `pattern`: how many packets leave back to back; 0: those of a frame."""
    packets_out: int = 0
    """For `pattern`: packets per second to all viewers together, however many they are."""
    in_turns: bool = False
    """Several systems run at once and are measured in turns. Viewers join before publishers, so that memory is that of
    idle transports. Nothing is sent between measurements. The generator does not sleep while it measures."""
    key_interval_frames: int = 90
    """Frames from one key frame to the next. Requested key frames come in addition."""
    large: int = 1
    """For `simulcast`: how many publishers a viewer asks for in HIGH. It asks for the others in LOW."""
    late: bool = False
    """Viewers join during the window, evenly spread."""
    switches_per_second: float = 0.0
    mutes_per_second: float = 0.0
    churn_per_second: float = 0.0
    """Churn: viewers that join per second, stay `stay_s` and leave. They are load and are not measured."""
    stay_s: float = 1.0
    calls_per_second: float = 0.0
    """Calls of the server API about the room of the viewers. They are load, and have figures of their own."""
    data: str = ""
    """`reliable` or `lossy` messages, or empty: none. Without media, publishers send them to each other and to the
    viewers. With media, one sender sends them to `data_receivers` in a separate room."""
    messages_per_second: float = 0.0
    """Messages that each sender sends per second."""
    message_bytes: int = 200
    """Bytes of a message's payload."""
    data_receivers: int = 0
    reports: bool = False
    """Whether those who receive media report its arrivals with transport-cc, as browsers do. A server that estimates
    their bandwidth then sends less when its own machine delays packets, so capacity is measured without."""
    seed: int = 1

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            BadScenario: it cannot be read or is malformed.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadScenario(f"{path}: {error}") from error
        return cls.check(path.stem, values, str(path))

    @classmethod
    def check(cls, name: str, values: dict[str, Any], where: str) -> Self:
        """Make a scenario from the values of a file; errors name it as `where`.

        Raises:
            BadScenario: a key is unknown, missing, or has a wrong value.
        """
        known = {field.name: _KINDS[getattr(field.type, "__name__", str(field.type))] for field in fields(cls)}
        for key, value in values.items():
            if key not in known or key == "name":
                raise BadScenario(f"{where}: unknown key {key!r}")
            right = isinstance(value, known[key]) and isinstance(value, bool) == (known[key] == (bool,))
            if not right:
                raise BadScenario(f"{where}: {key} has the wrong type")
        lacking = {"title", "unit", "n", "seconds"} - set(values)
        if lacking:
            raise BadScenario(f"{where}: lacks {', '.join(sorted(lacking))}")
        scenario = cls(name=name, **values)
        scenario._check_values(where)
        return scenario

    def _check_values(self, where: str) -> None:
        checks = {
            f"unit must be one of {', '.join(UNITS)}": self.unit in UNITS,
            f"video must be one of {', '.join(VIDEOS[1:])} or empty": self.video in VIDEOS,
            "n and seconds must be positive": self.n > 0 and self.seconds > 0,
            "loss must be below 1": 0 <= self.loss < 1,
            "publishers, room_size: at least 1 and 2": self.publishers >= 1 and self.room_size >= 2,
            "neither audio nor video nor data": bool(self.tracks) or self.data != "",
            "late is for viewers": not self.late or self.unit == "viewers",
            "rates must not be negative": min(*self._rates, self.large) >= 0,
            "stay_s must be positive": self.stay_s > 0,
            "churn is for one room": not self.churn_per_second or self.unit != "rooms",
            "calls are for viewers": not self.calls_per_second or self.unit == "viewers",
            "key_interval_frames must be positive": self.key_interval_frames > 0,
            "frames_per_second must be 0 to 120": 0 <= self.frames_per_second <= MAX_FRAMES_PER_SECOND,
        }
        checks |= self._pattern_checks() | self._data_checks()
        wrong = [text for text, good in checks.items() if not good]
        if wrong:
            raise BadScenario(f"{where}: {wrong[0]}")

    def _pattern_checks(self) -> dict[str, bool]:
        given = self.video == "pattern"
        return {
            f"pattern must be one of {', '.join(patterns())}": not given or self.pattern in patterns(),
            "pattern and packets_out are for video = pattern, which needs them": given
            == (self.pattern != "")
            == (self.packets_out > 0),
            "per_burst must not be negative": self.per_burst >= 0,
            "in_turns is for viewers of media that are there from the begin": not self.in_turns
            or (self.unit == "viewers" and not self.late and not self.data and not any(self._rates)),
        }

    @property
    def _rates(self) -> tuple[float, ...]:
        return self.switches_per_second, self.mutes_per_second, self.churn_per_second, self.calls_per_second

    def _data_checks(self) -> dict[str, bool]:
        media, least, most = bool(self.tracks), *MESSAGE_BYTES
        given = self.messages_per_second != 0 or self.data_receivers != 0
        return {
            "data must be reliable, lossy or empty": self.data in DATA,
            "messages_per_second and data_receivers are for data": self.data != "" or not given,
            "messages_per_second must not be negative": self.messages_per_second >= 0,
            f"message_bytes must be {least} to {most}": least <= self.message_bytes <= most,
            "data is for viewers": self.data == "" or self.unit == "viewers",
            "loss, late, switches, mutes, churn and calls are for media": media
            or not (self.loss or self.late or any(self._rates)),
            "data beside media needs data_receivers, alone it has the viewers": self.data == ""
            or media == (self.data_receivers > 0),
        }

    def sized(self, n: int | None, seconds: float | None, loss: float | None, **rates: float | None) -> Self:
        """Return the scenario with other numbers.

        Args:
            n: the size; None, here and below: as it is.
            seconds: of the window.
            loss: share of the packets that are dropped on arrival.
            rates: other fields by name.

        Raises:
            BadScenario: the values do not fit together.
        """
        given: dict[str, Any] = {"n": n, "seconds": seconds, "loss": loss, **rates}
        changed = replace(self, **{name: value for name, value in given.items() if value is not None})
        changed._check_values(self.name)
        return changed

    @property
    def tracks(self) -> tuple[TrackPlan, ...]:
        """The tracks of a publisher."""
        video = {"single": SINGLE, "simulcast": SIMULCAST}.get(self.video, ())
        tracks = (AUDIO,) * self.audio + (TrackPlan("video", video, self.frames_per_second),) * bool(video)
        if self.video != "pattern":
            return tracks
        layer = Layer("", self.packets_out / self.n, VIDEO_BYTES, self.pattern, self.per_burst)
        return (*tracks, TrackPlan("video", (layer,), frames_per_second=0))

    @property
    def counts(self) -> str:
        """What is measured: `packet` if there is media, else `message`."""
        return "packet" if self.tracks else "message"

    def early(self) -> list[Plan]:
        """Return who joins first: publishers, senders, and receivers of messages beside media."""
        return self._publishers() + self._messengers()

    def _messengers(self) -> list[Plan]:
        if not self.data:
            return []
        rate, room = self.messages_per_second, "data" if self.tracks else "room"
        senders = 1 if self.tracks else self.publishers
        return [
            Plan(room, f"sender-{k}", subscribe=False, data=True, messages_per_second=rate) for k in range(senders)
        ] + [Plan(room, f"receiver-{k}", subscribe=False, data=True) for k in range(self.data_receivers)]

    def _publishers(self) -> list[Plan]:
        if not self.tracks:
            return []
        if self.unit == "viewers":
            return [Plan("room", f"publisher-{k}", self.tracks, subscribe=False) for k in range(self.publishers)]
        if self.unit == "participants":
            return [Plan("room", f"participant-{k}", self.tracks, reports=self.reports) for k in range(self.n)]
        return [
            Plan(f"room-{room}", f"participant-{room}-{k}", self.tracks, reports=self.reports)
            for room in range(self.n)
            for k in range(self.room_size)
        ]

    def viewers(self) -> list[Plan]:
        """Return who only receives."""
        if self.unit != "viewers":
            return []
        media = bool(self.tracks)
        return [
            Plan("room", f"viewer-{k}", subscribe=media, data=not media, reports=self.reports) for k in range(self.n)
        ]

    def visitor(self, number: int) -> Plan:
        """Return one of the viewers that churn: it joins, receives everything in the room, and leaves."""
        return Plan("room", f"visitor-{number}", reports=self.reports)

    @property
    def subscribers(self) -> int:
        """The number of participants that receive something."""
        return self.n * (self.room_size if self.unit == "rooms" else 1)

    def choices(self) -> list[Choice]:
        """Return what viewers ask for before the window: `large` publishers of their room in HIGH, the others in LOW.

        Each asks for those in HIGH that follow it in the list, so that all publishers are asked for equally often.
        """
        if self.video != "simulcast":
            return []
        rooms: dict[str, list[str]] = {}
        for plan in self._publishers():
            rooms.setdefault(plan.room, []).append(plan.identity)
        return [
            Choice(viewer.identity, publisher, "HIGH" if place < self.large else "LOW")
            for viewer in self.viewers() or self._publishers()
            for place, publisher in enumerate(_others(rooms[viewer.room], viewer.identity))
        ]

    def changes(self) -> list[Change]:
        """Return the changes during the window, in order. They are equal for equal seeds."""
        dice = random.Random(self.seed)
        publishers = [plan.identity for plan in self._publishers()]
        viewers = [plan.identity for plan in (self.viewers() or self._publishers())]
        muted: set[str] = set()
        found = []
        for at_s in _moments(dice, self.switches_per_second, self.seconds):
            viewer = dice.choice(viewers)
            others = [each for each in publishers if each != viewer]
            if others:
                found.append(Change(at_s, Choice(viewer, dice.choice(others), dice.choice(QUALITIES))))
        for at_s in _moments(dice, self.mutes_per_second, self.seconds):
            name = dice.choice(publishers)
            muted ^= {name}
            found.append(Change(at_s, participant=name, muted=name in muted))
        return sorted(found, key=lambda change: change.at_s)


def _others(names: list[str], name: str) -> list[str]:
    """Return the other names, beginning behind `name` and going on at the start of the list."""
    place = names.index(name) if name in names else -1
    return [other for other in names[place + 1 :] + names[: max(place, 0)] if other != name]


def _moments(dice: random.Random, per_second: float, seconds: float) -> list[float]:
    """Return the moments of a Poisson process."""
    moments: list[float] = []
    at_s = dice.expovariate(per_second) if per_second > 0 else seconds
    while at_s < seconds:
        moments.append(at_s)
        at_s += dice.expovariate(per_second)
    return moments


def names() -> list[str]:
    """Return the names of the scenarios that come with the benchmark."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name: str) -> Scenario:
    """Return a scenario by its name, or by the path of a TOML file.

    Raises:
        BadScenario: there is none, or its file is malformed.
    """
    if name.endswith(".toml"):
        return Scenario.load(Path(name))
    if name not in names():
        raise BadScenario(f"no scenario {name!r}; there are {', '.join(names())}")
    return Scenario.load(FOLDER / f"{name}.toml")
