"""The cases, by name: TOML files in `cases`, and what they mean. Each describes a link and who is behind it."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from bench.network.link import STEPPED, Conditions, Steps

FOLDER = Path(__file__).parent / "cases"
CLIENTS = {"native": "viewer", "chromium": "chromium"}
"""The kinds of viewers, and the module of this folder that runs each."""
MAX_PHASES = 10
"""If the rate changes more often, the whole case is judged as one phase."""


class BadCase(ValueError):
    """The file of a case is wrong. The text names the file and the key."""


@dataclass(frozen=True, slots=True)
class ViewerPlan:
    """One viewer of a case."""

    name: str
    behind: bool = True
    """Whether it is behind the bottleneck. Otherwise it is on the server's side."""
    joins_s: float | None = None
    """When it joins, in seconds after the begin of the case. None: before the begin."""
    client: str = "native"
    """Which client it is, a key of CLIENTS."""


@dataclass(frozen=True, slots=True)
class Download:
    """A download over TCP through the bottleneck. Times are seconds after the begin of the case."""

    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class Message:
    """Reliable data that the publisher sends to everybody, `size` bytes."""

    at_s: float
    size: int


@dataclass(frozen=True, slots=True)
class Case:
    """A link, who uses it, and what happens.

    Times are seconds after the begin of the case. Then the steps of the link begin, and viewers without a time of their
    own are already in the room.
    """

    name: str
    title: str
    seconds: float
    down: Conditions
    up: Conditions
    viewers: tuple[ViewerPlan, ...]
    publisher_behind: bool = False
    download: Download | None = None
    message: Message | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a TOML file.

        Raises:
            BadCase: it is not a case.
        """
        try:
            with path.open("rb") as file:
                return cls._from(path.stem, tomllib.load(file))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BadCase(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise BadCase(f"{path}: {type(error).__name__}: {error}") from error

    @classmethod
    def _from(cls, name: str, data: dict[str, Any]) -> Self:
        data = dict(data)
        viewers = tuple(ViewerPlan(**each) for each in data.pop("viewers", [{"name": "viewer"}]))
        if unknown := {viewer.client for viewer in viewers} - CLIENTS.keys():
            raise ValueError(f"no client {min(unknown)!r}; there are {', '.join(CLIENTS)}")
        both = data.pop("both", {})
        down, up = (_conditions({**both, **data.pop(way, {})}) for way in ("down", "up"))
        download, message = data.pop("download", None), data.pop("message", None)
        return cls(
            name=name,
            down=down,
            up=up,
            viewers=viewers,
            download=Download(**download) if download else None,
            message=Message(**message) if message else None,
            **data,
        )

    def cut(self, seconds: float | None) -> Self:
        """Return this case with an end after `seconds`, or unchanged if that is None."""
        if seconds is None or seconds >= self.seconds:
            return self
        download = self.download
        if download is not None:
            within = download.begins_s < seconds
            download = Download(download.begins_s, min(download.ends_s, seconds)) if within else None
        viewers = tuple(viewer for viewer in self.viewers if (viewer.joins_s or 0) < seconds)
        message = self.message if self.message is not None and self.message.at_s < seconds else None
        return replace(self, seconds=seconds, viewers=viewers, download=download, message=message)

    def seen_by(self, client: str) -> Self:
        """Return this case with viewers that are all of one kind, a key of CLIENTS."""
        return replace(self, viewers=tuple(replace(viewer, client=client) for viewer in self.viewers))

    def phases(self) -> tuple[tuple[float, float], ...]:
        """Return begin and end of each time in which the link does not change and nobody comes or goes."""
        narrow = self.up if self.publisher_behind else self.down
        moments = {at for at, _ in narrow.rate}
        moments = {0.0} if len(moments) > MAX_PHASES else moments | {0.0}
        moments |= {viewer.joins_s for viewer in self.viewers if viewer.joins_s is not None}
        if self.download is not None:
            moments |= {self.download.begins_s, self.download.ends_s}
        ends = sorted(at for at in moments if at < self.seconds)
        return tuple(zip(ends, [*ends[1:], self.seconds], strict=True))


def _steps(value: Any) -> Steps:
    """Read a number, or pairs of seconds and number."""
    steps = tuple((float(at), float(each)) for at, each in value) if isinstance(value, list) else ((0.0, float(value)),)
    if not steps or list(steps) != sorted(steps, key=lambda step: step[0]) or min(each for _, each in steps) < 0:
        raise ValueError(f"steps are ascending in time and not negative: {value}")
    return steps


def _conditions(data: dict[str, Any]) -> Conditions:
    known: dict[str, Any] = {name: _steps(value) if name in STEPPED else value for name, value in data.items()}
    return Conditions(**known)


def names() -> list[str]:
    """Return the names of the cases in FOLDER."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name: str) -> Case:
    """Return the case of this name, or read this TOML file.

    Raises:
        BadCase: there is no such case, or its file is wrong.
    """
    if name in names():
        return Case.read(FOLDER / f"{name}.toml")
    if name.endswith(".toml"):
        return Case.read(Path(name))
    raise BadCase(f"no case {name!r}; there are {', '.join(names())}, or name a TOML file")
