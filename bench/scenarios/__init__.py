"""What is measured, by name: TOML files beside this one, and what they mean as participants, choices and changes."""

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
"""Room for what a message says of itself, and what every client takes in one."""
AUDIO_PACKETS_PER_SECOND, AUDIO_BYTES = 50, 100
VIDEO_BYTES = 1200
SINGLE = (Layer("", 230, VIDEO_BYTES),)
"""About 2.2 Mbit/s."""
SIMULCAST = (Layer("q", 20, VIDEO_BYTES), Layer("h", 60, VIDEO_BYTES), Layer("f", 230, VIDEO_BYTES))
"""320x180, 640x360 and 1280x720, with what LiveKit's clients spend on them."""
MAX_FRAMES_PER_SECOND = 120
QUALITIES = ("LOW", "MEDIUM", "HIGH")
AUDIO = TrackPlan("audio", (Layer("", AUDIO_PACKETS_PER_SECOND, AUDIO_BYTES),), frames_per_second=0)


class BadScenario(ValueError):
    """A scenario's file does not say what it must; the text names file and key."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A viewer asks for a layer of a publisher's video."""

    viewer: str
    publisher: str
    quality: str


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens while it is measured: a choice, or a participant that mutes or goes on."""

    at_s: float
    """After the begin of the window."""
    choice: Choice | None = None
    participant: str = ""
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `n` counts what `unit` says."""

    name: str
    title: str
    unit: str
    """`viewers`: of one room with `publishers`. `participants`: of one room, all publish. `rooms`: of `room_size`."""
    n: int
    seconds: float
    """Measured; warm-up and drain come on top."""
    loss: float = 0.0
    """Share of the media packets that the generator throws away on arrival and asks for again."""
    publishers: int = 1
    room_size: int = 4
    audio: bool = False
    video: str = ""
    """`single` layer, `simulcast`, or none."""
    frames_per_second: int = 30
    """Of video, whose packets leave frame by frame; 0: evenly spread."""
    pattern: str = ""
    """Of video = "pattern": packets that are sent over and over, `equal` ones or the name of a recording."""
    per_burst: int = 1
    """Of a pattern: packets that leave back to back; 0: a frame."""
    packets_out: int = 0
    """Of a pattern: packets a second to all viewers together, however many they are."""
    in_turns: bool = False
    """Several systems are up at once and measured in turns. Viewers come before who publishes, so that memory is that
    of idle transports; nothing is sent between measurements; and the generator does not sleep while it measures."""
    key_interval_frames: int = 90
    """From one key frame to the next, besides those that are asked for."""
    large: int = 1
    """How many of the others a viewer asks for in HIGH; the rest it asks for in LOW. For simulcast."""
    late: bool = False
    """Viewers join during the measured time, evenly."""
    switches_per_second: float = 0.0
    mutes_per_second: float = 0.0
    visits_per_second: float = 0.0
    """Viewers that come beside the others, stay `visit_s` and leave again. They are load and are not measured."""
    visit_s: float = 1.0
    data: str = ""
    """`reliable` or `lossy` messages, or none. Without media, publishers send them to each other and to the viewers;
    with media, they go through a room of their own, from one sender to `data_receivers`."""
    messages_per_second: float = 0.0
    """Of each sender."""
    message_bytes: int = 200
    """Of a message's payload."""
    data_receivers: int = 0
    seed: int = 1

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file. Raises BadScenario."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadScenario(f"{path}: {error}") from error
        return cls.check(path.stem, values, str(path))

    @classmethod
    def check(cls, name: str, values: dict[str, Any], where: str) -> Self:
        """Make a scenario of the values of a file. Raises BadScenario."""
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
            "visit_s must be positive": self.visit_s > 0,
            "visits are for one room": not self.visits_per_second or self.unit != "rooms",
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
        return self.switches_per_second, self.mutes_per_second, self.visits_per_second

    def _data_checks(self) -> dict[str, bool]:
        media, least, most = bool(self.tracks), *MESSAGE_BYTES
        given = self.messages_per_second != 0 or self.data_receivers != 0
        return {
            "data must be reliable, lossy or empty": self.data in DATA,
            "messages_per_second and data_receivers are for data": self.data != "" or not given,
            "messages_per_second must not be negative": self.messages_per_second >= 0,
            f"message_bytes must be {least} to {most}": least <= self.message_bytes <= most,
            "data is for viewers": self.data == "" or self.unit == "viewers",
            "loss, late, switches, mutes and visits are for media": media
            or not (self.loss or self.late or any(self._rates)),
            "data beside media needs data_receivers, alone it has the viewers": self.data == ""
            or media == (self.data_receivers > 0),
        }

    def sized(self, n: int | None, seconds: float | None, loss: float | None, **rates: float | None) -> Self:
        """The same with other numbers; None leaves one as it is. rates: fields by name. Raises BadScenario."""
        given: dict[str, Any] = {"n": n, "seconds": seconds, "loss": loss, **rates}
        changed = replace(self, **{name: value for name, value in given.items() if value is not None})
        changed._check_values(self.name)
        return changed

    @property
    def tracks(self) -> tuple[TrackPlan, ...]:
        """What a publisher publishes."""
        video = {"single": SINGLE, "simulcast": SIMULCAST}.get(self.video, ())
        tracks = (AUDIO,) * self.audio + (TrackPlan("video", video, self.frames_per_second),) * bool(video)
        if self.video != "pattern":
            return tracks
        layer = Layer("", self.packets_out / self.n, VIDEO_BYTES, self.pattern, self.per_burst)
        return (*tracks, TrackPlan("video", (layer,), frames_per_second=0))

    @property
    def counts(self) -> str:
        """What is measured, `packet` or `message`: media if there is any."""
        return "packet" if self.tracks else "message"

    def early(self) -> list[Plan]:
        """Who joins first: who publishes or sends, and who receives messages beside the media."""
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
            return [Plan("room", f"participant-{k}", self.tracks) for k in range(self.n)]
        return [
            Plan(f"room-{room}", f"participant-{room}-{k}", self.tracks)
            for room in range(self.n)
            for k in range(self.room_size)
        ]

    def viewers(self) -> list[Plan]:
        """Who only receives."""
        if self.unit != "viewers":
            return []
        media = bool(self.tracks)
        return [Plan("room", f"viewer-{k}", subscribe=media, data=not media) for k in range(self.n)]

    def visitor(self, number: int) -> Plan:
        """One of those who come and go: it gets everything in the room."""
        return Plan("room", f"visitor-{number}")

    @property
    def subscribers(self) -> int:
        """Participants that receive something."""
        return self.n * (self.room_size if self.unit == "rooms" else 1)

    def choices(self) -> list[Choice]:
        """What viewers ask for before the measurement: `large` of the others in their room in HIGH, the rest in LOW.

        Who comes after oneself is seen large, so everybody is seen large by equally many.
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
        """What happens during the measurement, in order: the same for every run with one seed."""
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
    """The names that follow `name`, round and round; all of them if it is not there."""
    place = names.index(name) if name in names else -1
    return [other for other in names[place + 1 :] + names[: max(place, 0)] if other != name]


def _moments(dice: random.Random, per_second: float, seconds: float) -> list[float]:
    """Moments of a Poisson process."""
    moments: list[float] = []
    at_s = dice.expovariate(per_second) if per_second > 0 else seconds
    while at_s < seconds:
        moments.append(at_s)
        at_s += dice.expovariate(per_second)
    return moments


def names() -> list[str]:
    """The scenarios that come with the benchmark."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name: str) -> Scenario:
    """A scenario by its name, or by the path of a TOML file. Raises BadScenario."""
    if name.endswith(".toml"):
        return Scenario.load(Path(name))
    if name not in names():
        raise BadScenario(f"no scenario {name!r}; there are {', '.join(names())}")
    return Scenario.load(FOLDER / f"{name}.toml")
