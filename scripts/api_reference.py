"""Write the reference part of docs/api.md from the docstrings of the engine's border.

    .venv/bin/python -m scripts.api_reference

What is public is what a module lists in `__all__` or defines without a leading underscore, and of an object what has a
docstring. A test compares the document with what this would write.
"""

import ast
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NewType

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "api.md"
BEGIN = "<!-- From here on `make docs` writes what the docstrings say. -->"
MODULES = ("sfu.engine", "sfu.parameters", "sfu.events", "sfu.errors")
SECTIONS = {"Args:": "", "Raises:": "raises "}
"""Sections of docstrings, and what is written before the names of their entries."""
Body = list[ast.stmt]


def public_names(module: ModuleType) -> list[str]:
    """What a module offers, in the order of its text; names that it imports only if it lists them in `__all__`."""
    own = [name for statement in _parse(module).body for name in _names(statement) if not name.startswith("_")]
    listed: list[str] = getattr(module, "__all__", own)
    return sorted(
        (name for name in listed if name != "logger"), key=lambda name: own.index(name) if name in own else len(own)
    )


def reference() -> str:
    """The reference of all modules, in Markdown."""
    described: set[str] = set()
    parts = []
    for path in MODULES:
        module = importlib.import_module(path)
        parts.append(f"## `{path}`\n\n{_flat(module.__doc__)}")
        for name in public_names(module):
            if name not in described and (path != "sfu.engine" or not issubclass(getattr(module, name), Exception)):
                described.add(name)
                parts.append(_describe(module, name))
    return "\n\n".join(parts) + "\n"


def rewritten(document: str) -> str:
    """The document with its reference as it should be.

    Raises:
        ValueError: the document has no place for it.
    """
    before, mark, _ = document.partition(BEGIN)
    if not mark:
        raise ValueError(f"{DOCUMENT} has no line {BEGIN}")
    return f"{before}{BEGIN}\n\n{reference()}"


def _describe(module: ModuleType, name: str) -> str:
    value = getattr(module, name)
    if not inspect.isclass(value):
        return _describe_constant(module, name, value)
    tree = class_of(value)
    head = f"### `{name}`\n\n{_flat(ast.get_docstring(tree))}"
    if issubclass(value, enum.Enum):
        rows = [row(f"`{field}`", f"`{value[field].value!r}`", text) for field, _, text in fields_of(tree.body)]
        return "\n".join((f"{head}\n", "| name | value | |", "|---|---|---|", *rows))
    if is_dataclass(value):
        rows = [row(f"`{field}`", declared, text) for field, declared, text in fields_of(tree.body)]
        return "\n".join((f"{head}\n", "| field | type | |", "|---|---|---|", *rows))
    return "\n".join((f"{head}\n", *_members(name, tree))).rstrip()


def class_of(value: type) -> ast.ClassDef:
    """A class as it is written."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return tree


def _describe_constant(module: ModuleType, name: str, value: Any) -> str:
    body = _parse(module).body
    statement = next(each for each in body if name in _names(each))
    if isinstance(value, dict):
        rows = [f"| `{_word(key)}` | `{_word(meaning)}` |" for key, meaning in value.items()]
        return "\n".join((f"### `{name}`\n", _docstring_after(body, statement), "", "| | |", "|---|---|", *rows))
    if isinstance(value, NewType):
        shown = f"An `{value.__supertype__.__name__}`"
    elif isinstance(value, int):
        shown = f"`{value}`"
    else:
        shown = f"`{_source(statement).partition('= ')[2]}`"
    return f"### `{name}`\n\n{shown}. {_docstring_after(body, statement)}".rstrip()


def row(*cells: str) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |".replace("  |", " |")


def _word(value: object) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, enum.Enum) else str(value)


def _members(name: str, tree: ast.ClassDef) -> Iterator[str]:
    for member in tree.body:
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(member)
            if member.name == "__init__":
                yield f"* **`{name}({_arguments(member)})`** {_inside(documented)}".rstrip()
                yield from (f"* **`{field}`** {text}" for field, text in _attributes(member.body))
            elif not member.name.startswith("_"):
                words = "await " if isinstance(member, ast.AsyncFunctionDef) else ""
                is_property = any(
                    isinstance(each, ast.Name) and each.id == "property" for each in member.decorator_list
                )
                call = member.name if is_property else f"{words}{member.name}({_arguments(member)})"
                result = f" -> {ast.unparse(member.returns)}" if member.returns is not None else ""
                yield f"* **`{call}{result.removesuffix(' -> None')}`** {_inside(documented)}"


def _inside(text: str | None) -> str:
    """A docstring as the text of a list's item; what its sections name are items of a list inside."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    plain = [" ".join(each.split()) for each in paragraphs if each.partition("\n")[0] not in SECTIONS]
    entries = [
        f"  * {SECTIONS[head]}{name}: {meaning}"
        for head, _, body in (each.partition("\n") for each in paragraphs)
        if head in SECTIONS
        for name, meaning in _entries(body)
    ]
    return "\n".join(("\n\n  ".join(plain), *entries))


def _entries(body: str) -> Iterator[tuple[str, str]]:
    """(names, meaning) of each entry of a docstring's section; what an entry says in further lines is indented more."""
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(body)):
        names, _, meaning = entry.partition(":")
        yield ", ".join(f"`{name.strip()}`" for name in names.split(",")), " ".join(meaning.split())


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return ast.unparse(function.args).removeprefix("self").removeprefix(", ")


def _attributes(body: Body) -> Iterator[tuple[str, str]]:
    """Attributes that are set in `__init__` and have a docstring."""
    for statement in body:
        text = _docstring_after(body, statement)
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute) and text:
            yield statement.targets[0].attr, text


def fields_of(body: Body) -> Iterator[tuple[str, str, str]]:
    """(name, type with default, meaning) of the fields of a dataclass or the members of an enum."""
    for statement in body:
        for field in _names(statement):
            declared = _source(statement).partition(": ")[2].replace("field(default_factory=dict)", "{}")
            yield field, f"`{declared}`".replace("|", "\\|"), _docstring_after(body, statement)


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _docstring_after(body: Body, statement: ast.stmt) -> str:
    follows = body[body.index(statement) + 1 :][:1]
    if follows and isinstance(follows[0], ast.Expr) and isinstance(follows[0].value, ast.Constant):
        return _flat(str(follows[0].value.value))
    return ""


def _source(statement: ast.stmt) -> str:
    return ast.unparse(statement)


def _parse(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _flat(text: str | None) -> str:
    """A docstring in one line a paragraph."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(each if each.startswith("*") else " ".join(each.split()) for each in paragraphs)


if __name__ == "__main__":
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
