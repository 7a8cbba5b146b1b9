"""What the machine code of a kernel depends on: statements of our files, found by the names that they use.

In a file with kernels each name at the top stands for the statements that bind it. A file without kernels is data,
built in ways that names do not tell: it counts whole, for every kernel from whose file imports lead to it. Whatever is
not understood counts as use of a whole file. So a kernel may be compiled once too often, but not too seldom.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sfu", "bench")
WHOLE = ""
"""In place of a name: the whole file."""
Part = tuple[Path, str]
"""A file of ours, and a name at its top, or WHOLE."""


class _Source:
    """A file of ours: what its top-level statements bind."""

    def __init__(self, path: Path) -> None:
        tree = self.tree = _without_strings(ast.parse(path.read_text(encoding="utf-8")))
        self.imported: dict[str, Part] = {}
        """What each name is that an import at the top binds, of ours."""
        self.bound: defaultdict[str, list[ast.stmt]] = defaultdict(list)
        """The statements that bind each name."""
        self.always: list[ast.stmt] = []
        """Statements that may do more than bind a name: every name of the file depends on them."""
        self.kernels: list[str] = []
        for node in tree.body:
            self._take(node)
        self.is_whole = (
            not self.kernels
            or any(map(_is_obscure, ast.walk(tree)))
            or not self.imported.keys().isdisjoint(self.bound.keys())
        )

    def _take(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ImportFrom):
            self.imported.update((alias.asname or alias.name, part) for alias, part in _from_ours(node))
        elif isinstance(node, ast.FunctionDef) and all(map(_is_njit, node.decorator_list)):
            self.bound[node.name].append(node)
            self.kernels += [node.name] if node.decorator_list else []
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            self._bind(node, [each for target in targets for each in ast.walk(target)])
            self.always += [node] if any(isinstance(each, ast.Call) for each in ast.walk(node)) else []
        else:
            self.always.append(node)
            self._bind(node, ast.walk(node))

    def _bind(self, node: ast.stmt, parts: Iterable[ast.AST]) -> None:
        for part in parts:
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                self.bound[part.id].append(node)
            elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.bound[part.name].append(node)
            elif isinstance(part, ast.Attribute | ast.Subscript):  # changes what another statement made
                self.always.append(node)

    def statements(self, name: str) -> list[ast.stmt]:
        return self.bound[name] + self.always


def _without_strings(tree: ast.Module) -> ast.Module:
    """Take docstrings, and strings that stand under what they describe, out of a tree. They reach no machine code."""
    for node in ast.walk(tree):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                setattr(node, block, [each for each in statements if not _is_string(each)])
    return tree


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_njit(decorator: ast.expr) -> bool:
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(function, ast.Name) and function.id == "njit"


def _is_obscure(node: ast.AST) -> bool:
    """Whether names may be bound here that the statements at the top do not show."""
    if isinstance(node, ast.ImportFrom):
        return any(alias.name == "*" for alias in node.names)
    return isinstance(node, ast.Global) or (
        isinstance(node, ast.Name) and node.id in ("globals", "vars", "setattr", "exec", "eval")
    )


def _file(module: str) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    place = ROOT / module.replace(".", "/")
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)


def _from_ours(node: ast.ImportFrom) -> Iterator[tuple[ast.alias, Part]]:
    for alias in node.names:
        if module := _file(f"{node.module}.{alias.name}"):
            yield alias, (module, WHOLE)
        elif source := _file(node.module or ""):
            yield alias, (source, alias.name)


@cache
def _source(path: Path) -> _Source:
    return _Source(path)


@cache
def imports(path: Path) -> frozenset[Path]:
    """Files of ours that a file imports, wherever in it."""
    found: set[Path | None] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found.add(_file(node.module or ""))
            found.update(part[0] for _, part in _from_ours(node))
        elif isinstance(node, ast.Import):
            found.update(_file(alias.name) for alias in node.names)
    return frozenset(file for file in found if file is not None)


@cache
def _uses(path: Path, name: str) -> frozenset[Part]:
    """What a part needs directly."""
    if name == WHOLE:
        return frozenset((file, WHOLE) for file in imports(path))
    source = _source(path)
    if not source.is_whole and name in source.imported:
        return frozenset([source.imported[name]])
    if source.is_whole or name not in source.bound:
        return frozenset([(path, WHOLE)])
    return frozenset(part for node in source.statements(name) for part in _used(node, path, source))


def _used(node: ast.AST, path: Path, source: _Source) -> Iterator[Part]:
    if isinstance(node, ast.Import):
        yield from ((file, WHOLE) for alias in node.names if (file := _file(alias.name)))
    elif isinstance(node, ast.ImportFrom):
        yield from (part for _, part in _from_ours(node))
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        file, name = source.imported.get(node.value.id, (path, node.value.id))
        if name == WHOLE:
            yield file, node.attr
        else:
            yield from _used(node.value, path, source)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
        if node.id in source.imported or node.id in source.bound:
            yield source.imported.get(node.id, (path, node.id))
    else:
        for child in ast.iter_child_nodes(node):
            yield from _used(child, path, source)


@cache
def _reached(path: Path, name: str) -> frozenset[Part]:
    seen: set[Part] = set()
    waiting = [(path, name)]
    while waiting:
        part = waiting.pop()
        if part not in seen:
            seen.add(part)
            waiting.extend(_uses(*part))
    return frozenset(seen)


def needed(path: Path, name: str = WHOLE) -> frozenset[Part]:
    """Everything that a part needs, itself included, to any depth."""
    # A kernel also depends on the types of its arguments, which no name in it tells. Tables are what it is given.
    data = frozenset(part for part in _reached(path, WHOLE) if _source(part[0]).is_whole)
    return _reached(path, name) | data


@cache
def text(path: Path, name: str) -> str:
    """The code of a part. It shows any change but one of comments, docstrings, blanks and place in the file."""
    source = _source(path)
    return "\n".join(map(ast.unparse, [source.tree] if name == WHOLE else source.statements(name)))


def kernels(path: Path) -> list[str]:
    """Names at the top of a file that are kernels."""
    return _source(path).kernels
