"""A YAML text as plain values, with the line of every key: for error messages that an operator can act on.

Who calls it: `configuration.py`. Scalars stay text (an API key "007" must not become the number 7); the schema converts
them.
"""

import contextlib
import re
from difflib import get_close_matches
from typing import Any

import yaml

from signaling.config.known_keys import Each, KeyTable, Use

MERGE_KEY = "<<"
"""YAML's merge key: its value is a mapping, or a list of these, whose keys count as the enclosing mapping's."""
NULL = "tag:yaml.org,2002:null"
"""The tag of a value that is null or missing."""

MAX_VALUES = 100_000
"""Values of one configuration. Aliases let a few lines stand for any number of them."""
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""Matches what no text may have: a zero, which ends names of files, and half a character, which cannot be encoded."""

Path = tuple[str, ...]
"""The keys that lead to a value, outermost first. The place in a list is one of them, from "0"."""


class ConfigError(Exception):
    """A configuration cannot be used. The text is one line that says where and why."""


class Document:
    """The values of one YAML text, with the lines of their keys."""

    values: dict[str, Any]
    """The outermost mapping; keys whose value is null are left out, as if they were not written."""
    remarks: tuple[str, ...]
    """What the operator should know of the text, one line each."""

    def __init__(self, name: str, text: str) -> None:
        """Read the first YAML document of `text`, as livekit-server does; `name` is what errors call it.

        Raises:
            ConfigError: the text is not YAML, no mapping, has a key twice, or stands for too much by aliases.
        """
        self.name = name
        self._lines: dict[Path, int] = {}
        self._origins: dict[Path, str] = {}
        """Where values come from that are not in the text."""
        self._count = 0
        """The values read so far."""
        self._around: list[yaml.Node] = []
        """The mappings and lists in which the value is that is being read, outermost first."""
        try:
            node, self.remarks = self._first(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem or 'not YAML'}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{name}:1: not YAML: {str(error).splitlines()[0]}") from error
        try:
            values = None if node is None else self._plain(node, ())
        except RecursionError as error:  # by aliases, in a text that is not nested so deeply itself
            raise ConfigError(f"{name}:1: values are nested too deeply") from error
        if values is not None and not isinstance(values, dict):
            raise ConfigError(f"{name}:1: the configuration must be a mapping of keys")
        self.values = values or {}

    def set(self, path: Path, text: str, origin: str) -> None:
        """Put a value where one of the text may be, in whose place it comes. Errors about it name `origin`.

        Raises:
            ConfigError: it is no text that can be used, as variables of the environment may be.
        """
        if _UNUSABLE.search(text):
            raise ConfigError(f"{origin}: there is a character in it that cannot be used")
        values = self.values
        for name in path[:-1]:
            if not isinstance(values.get(name), dict):
                values[name] = {}
            values = values[name]
        values[path[-1]] = text
        self._origins[path] = origin

    def error(self, path: Path, text: str) -> ConfigError:
        """Build the error for the value at `path`."""
        parts = (origin for inner, origin in self._origins.items() if inner[: len(path)] == path)
        if origin := next(parts, ""):
            return ConfigError(f"{origin}: {text}")
        while path and path not in self._lines:
            path = path[:-1]
        return ConfigError(f"{self.name}:{self._lines.get(path, 1)}: {text}")

    def _first(self, text: str) -> tuple[yaml.Node | None, tuple[str, ...]]:
        """Return the first document of a text, if there is one, and a remark if others follow."""
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_node() if loader.check_node() else None
            line = loader.line + 1
            with contextlib.suppress(yaml.YAMLError):  # what follows is not read, whatever it is
                following = loader.get_node() if loader.check_node() else None
                if following is None or following.tag == NULL:
                    return node, ()
            return node, (f"{self.name}:{line}: only the first YAML document is read, and others follow",)
        finally:
            loader.dispose()

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._at(node, f"more than {MAX_VALUES} values, with those for which aliases stand")
        if isinstance(node, yaml.ScalarNode):
            if _UNUSABLE.search(node.value):
                raise self._at(node, f"{'.'.join(path)}: there is a character in it that cannot be used")
            # A scalar stays the text that it is: an API key "007" must not become the number 7.
            return None if node.tag == NULL else node.value
        if node in self._around:
            raise self._at(node, "an alias stands for what it is in")
        self._around.append(node)
        values = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        self._around.pop()
        return values

    def _list(self, node: yaml.Node, path: Path) -> list[Any]:
        places = [(*path, str(index)) for index in range(len(node.value))]
        self._lines |= {place: item.start_mark.line + 1 for place, item in zip(places, node.value, strict=True)}
        return [self._plain(item, place) for place, item in zip(places, node.value, strict=True)]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self.name}:{line}: a key must be a name")
            if key_node.value == MERGE_KEY and (mappings := _mappings(value_node)):
                for mapping in reversed(mappings):  # the first one wins
                    merged |= self._plain(mapping, path)
                continue
            key = (*path, key_node.value)
            if key_node.value in values:
                raise ConfigError(f"{self.name}:{line}: {'.'.join(key)} is given twice")
            self._lines[key] = line
            value = self._plain(value_node, key)
            if value is not None:
                values[key_node.value] = value
        return merged | values

    def _at(self, node: yaml.Node, text: str) -> ConfigError:
        return ConfigError(f"{self.name}:{node.start_mark.line + 1}: {text}")


def _mappings(node: yaml.Node) -> list[yaml.Node]:
    """Return the mappings that the value of a merge key names; none, if it is no such value."""
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return nodes if all(isinstance(each, yaml.MappingNode) for each in nodes) else []


def check_names(document: Document, known: KeyTable, strict: bool = True) -> tuple[list[str], list[str]]:
    """Return the dotted names of the keys that are known and ignored, and of those that are unknown.

    Args:
        document: what is checked. Unknown keys are taken out of it.
        known: the keys that there are.
        strict: an unknown key is an error.

    Raises:
        ConfigError: for the first key that is not in `known`, with its line; or a value should be a mapping, or a list
            of mappings.
    """
    ignored: list[str] = []
    unknown: list[str] = []

    def walk(values: dict[str, Any], table: KeyTable, path: Path) -> None:
        for name, value in tuple(values.items()):
            here = (*path, name)
            match table.get(name):
                case None:
                    if strict:
                        raise document.error(here, f"unknown key {'.'.join(here)}{_suggestion(name, table)}")
                    unknown.append(".".join(here))
                    del values[name]
                case Use.IGNORED:
                    ignored.append(".".join(here))
                case Use.ACTED_ON:
                    pass
                case dict() as nested:
                    if not isinstance(value, dict):
                        raise document.error(here, f"{'.'.join(here)} must be a mapping of keys")
                    walk(value, nested, here)
                case Each(keys):
                    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
                        raise document.error(here, f"{'.'.join(here)} must be a list of mappings of keys")
                    for index, item in enumerate(value):
                        walk(item, keys, (*here, str(index)))

    walk(document.values, known, ())
    return ignored, unknown


def _suggestion(name: str, table: KeyTable) -> str:
    close = get_close_matches(name, table, 1)
    return f" (did you mean {close[0]}?)" if close else ""
