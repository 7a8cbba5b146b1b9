"""signaling/config/known_keys.py: every key stands there once."""

import ast
from collections import Counter
from collections.abc import Iterator
from inspect import getsource

import pytest

from signaling.config import known_keys


def mappings(source: str) -> Iterator[tuple[int, list[str]]]:
    """(line, keys) of each mapping in the source, with the keys of what is merged into it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            keys: list[str] = []
            for key, value in zip(node.keys, node.values, strict=True):
                if key is None:
                    assert isinstance(value, ast.Call), f"line {node.lineno}: only a call of _ignored is merged"
                    keys += _texts(value)
                else:
                    keys.append(ast.literal_eval(key))
            yield node.lineno, keys
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_ignored":
            yield node.lineno, _texts(node)


def _texts(call: ast.Call) -> list[str]:
    return " ".join(ast.literal_eval(argument) for argument in call.args).split()


def repeated(source: str) -> list[tuple[int, list[str]]]:
    counted = ((line, [key for key, times in Counter(keys).items() if times > 1]) for line, keys in mappings(source))
    return [(line, keys) for line, keys in counted if keys]


def test_no_key_stands_twice_so_that_none_is_both_acted_on_and_ignored() -> None:
    """In a mapping the later entry would win without a word."""
    source = getsource(known_keys)
    assert sum(len(keys) for _, keys in mappings(source)) > 150
    assert repeated(source) == []


@pytest.mark.parametrize(
    "source",
    ['{"port": 1, **_ignored("host port")}', '{"port": 1, "port": 2}', '_ignored("a b a")', '{"x": _ignored("a a")}'],
)
def test_a_key_that_stands_twice_would_be_found(source: str) -> None:
    assert repeated(source)
