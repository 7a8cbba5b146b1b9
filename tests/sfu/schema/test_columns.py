"""Columns: where they lie in a row, what they hold when it opens, who reads and who writes them."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scripts.table_reference import DOCUMENT, document, row_types
from sfu.schema.capacities import DROPS, NOTICE_BLOCK, NOTICE_ROWS, SCRATCH_WORDS
from sfu.schema.codes import Command, Drop, NoticeKind, Scratch
from sfu.schema.columns import CONTROL, HANDED, MEDIA, Column, RowType
from sfu.schema.layout import CACHE_LINE, Layout
from sfu.schema.queue_tables import COMMAND, COMMAND_FIELDS
from sfu.schema.subscription_tables import SUBSCRIPTION, SUBSCRIPTION_LINES
from sfu.schema.tables import STATE

ROOT = Path(__file__).parents[3]
ROW_TYPES = [pytest.param(each, id=each.name) for each in row_types()]
MAX_RESET_BYTES = 12 * CACHE_LINE
"""What may be written when a row opens: room for single values, and not for columns of many."""
ROWS = {each.type.name: each for each in STATE.columns if isinstance(each.type, RowType)}
"""The column of the state in which rows of a type lie, by the type's name."""


def _whole_lines(size: int) -> int:
    return -(-size // CACHE_LINE) * CACHE_LINE


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_columns_lie_in_their_order_as_close_as_their_types_allow(row_type: RowType) -> None:
    dtype = row_type.dtype
    assert dtype.names == tuple(column.name for column in row_type.columns)
    end = 0
    for column in row_type.columns:
        kind, offset = dtype.fields[column.name][:2]
        alignment = CACHE_LINE if row_type.layout is Layout.OWN_LINES else kind.base.alignment
        assert offset == -(-end // alignment) * alignment, column.name
        end = offset + kind.itemsize
    whole = _whole_lines(end) if row_type.layout is not Layout.CLOSE else -(-end // dtype.alignment) * dtype.alignment
    assert dtype.itemsize == whole


def test_what_every_packet_needs_of_a_subscription_lies_in_its_first_lines() -> None:
    columns = SUBSCRIPTION.dtype.fields
    assert columns["produced_targets"][1] < SUBSCRIPTION_LINES * CACHE_LINE <= columns["rtx_payload_type"][1]


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_a_reset_writes_every_column_of_the_media_thread_and_not_a_byte_of_the_others(row_type: RowType) -> None:
    dirty = np.full(row_type.dtype.itemsize, 0xA5, np.uint8)
    for offset, content in row_type.reset_parts():
        dirty[offset : offset + len(content)] = list(content)
    row = dirty.view(row_type.dtype)[0]
    for column in row_type.columns:
        if column.is_reset:
            assert row[column.name].tobytes() == row_type.blank[column.name].tobytes(), column.name
        else:
            assert set(row[column.name].tobytes()) == {0xA5}, column.name


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_what_is_reset_is_small(row_type: RowType) -> None:
    """A page that is not written costs no memory. A large column is `kept`, and a counter says what of it is valid."""
    if row_type in (SUBSCRIPTION, *OPENED):
        assert sum(len(content) for _, content in row_type.reset_parts()) <= MAX_RESET_BYTES


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_every_column_says_what_it_means(row_type: RowType) -> None:
    for column in row_type.columns:
        assert re.fullmatch(r"[^a-z].*\.", column.meaning), f"{row_type.name}.{column.name}: {column.meaning}"
        assert column.writer is MEDIA or (not column.kept and column.initial == 0), column.name


def test_the_tables_are_documented_as_they_are() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run `make docs`"


# Codes.


def test_every_reason_to_drop_has_a_counter_and_is_used() -> None:
    assert len(Drop) <= DROPS
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "sfu").rglob("*.py"))
    assert [drop.name for drop in Drop if not re.search(rf"\bDrop\.{drop.name}\b", text)] == []


def test_commands_have_numbers_by_table_and_fields_that_exist() -> None:
    tables = [
        re.sub(r".*(TRACK|SUBSCRIPTION|TRANSPORT|CONNECTION).*", r"\1", kind.name)
        for kind in Command
        if "OPEN" in kind.name
    ]
    assert tables == ["TRANSPORT", "TRACK", "SUBSCRIPTION", "CONNECTION"]
    named = {name for fields in COMMAND_FIELDS.values() for name in fields}
    assert named | {"kind", "row", "generation"} == {column.name for column in COMMAND.columns}
    assert set(COMMAND_FIELDS) == set(Command)


def test_every_notice_has_a_counter_for_each_row() -> None:
    assert len(NOTICE_ROWS) == len(NoticeKind)
    assert [kind.name for kind, rows in zip(NoticeKind, NOTICE_ROWS, strict=True) if rows % NOTICE_BLOCK] == []


def test_scratch_words_do_not_overlap() -> None:
    words = [*sorted(Scratch), SCRATCH_WORDS]
    sizes = {Scratch.INITIALISATION_VECTOR: 2, Scratch.TIME: 2, Scratch.TIMEOUT: 2, Scratch.DIGEST: 3}
    assert [word for word, following in pairwise(words) if word + sizes.get(Scratch(word), 1) > following] == []


# Readers and writers.

OPENED = [each for each in row_types() if each.name in ("transport", "track", "stream", "subscription", "source")]
SINGULAR = {each.name: each for each in row_types()}
TAKEN = {"taken", "taken_blocks", "next_block"}
"""What `take_notices` writes, a kernel that the control thread calls."""


def _sources(*places: str) -> Iterator[tuple[Path, ast.Module]]:
    for place in places:
        for path in sorted((ROOT / place).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def _row_type_of(node: ast.expr, known: dict[str, RowType]) -> RowType | None:
    """The type of the row that an expression of a kernel is, as far as its names tell."""
    if isinstance(node, ast.Name):
        return known.get(node.id) or SINGULAR.get(node.id)
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        column = next((each for each in STATE.columns if each.name == node.attr), None)
        if column is not None and isinstance(column.type, RowType):
            return column.type
    return None


def _known_rows(function: ast.FunctionDef) -> dict[str, RowType]:
    """Names in a kernel to which rows are bound: `track, thread = state.tracks[row], state.thread[0]`."""
    known: dict[str, RowType] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = zip(target.elts, value.elts, strict=False) if both else [(target, value)]  # type: ignore[attr-defined]
            for name, bound in pairs:
                found = _row_type_of(bound, {}) if isinstance(bound, ast.Subscript) else None
                if isinstance(name, ast.Name) and found is not None:
                    known[name.id] = found
    return known


def _kernel_columns(context: type[ast.expr_context], *places: str) -> Iterator[tuple[str, RowType | None, str]]:
    """(place, row type as far as it is known, column) that kernels store to or load from."""
    for path, module in _sources(*places):
        for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
            known = _known_rows(function)
            for node in ast.walk(function):
                inner = node.value if isinstance(node, ast.Subscript) else node
                while isinstance(inner, ast.Subscript):
                    inner = inner.value
                if isinstance(inner, ast.Attribute) and isinstance(getattr(node, "ctx", None), context):
                    where = f"{path.relative_to(ROOT)}:{inner.lineno} {function.name}"
                    yield where, _row_type_of(inner.value, known), inner.attr


def _column(row_type: RowType, name: str) -> Column | None:
    return next((each for each in row_type.columns if each.name == name), None)


def test_only_the_control_thread_writes_its_columns() -> None:
    wrong, seen = [], 0
    for where, row_type, name in _kernel_columns(ast.Store, "sfu/media", "sfu/queues"):
        column = _column(row_type, name) if row_type is not None else None
        seen += column is not None
        if column is not None and column.writer is CONTROL and column.name not in TAKEN:
            wrong.append(f"{where} writes {row_type.name}.{name}")  # type: ignore[union-attr]
    assert seen > 300
    assert wrong == []


def _strings(node: ast.AST, context: type[ast.expr_context] | None = None) -> Iterator[str]:
    """Names of columns in Python code: those in brackets, stored to or loaded, or with no context all strings."""
    for each in ast.walk(node):
        if context is None:
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value
        elif isinstance(each, ast.Subscript) and isinstance(each.ctx, context) and isinstance(each.slice, ast.Constant):
            yield str(each.slice.value)


def test_the_control_thread_writes_no_column_of_the_media_thread() -> None:
    by_name: dict[str, list[Column]] = {}
    for row_type in row_types():
        for column in row_type.columns:
            by_name.setdefault(column.name, []).append(column)
    wrong, seen = [], 0
    for path, module in _sources("sfu/control"):
        if path.name == "media_thread.py":  # runs in the media thread, when its loop has failed
            continue
        for name in _strings(module, ast.Store):
            columns = by_name.get(name, [])
            seen += bool(columns)
            if columns and not any(column.writer in (CONTROL, HANDED) for column in columns):
                wrong.append(f"{path.name} writes {name}")
    assert seen > 30
    assert wrong == []


def test_every_column_has_a_reader() -> None:
    read: set[tuple[str, str]] = set()
    anywhere: set[str] = set()
    for _, row_type, name in _kernel_columns(ast.Load, "sfu/media", "sfu/queues"):
        if row_type is None:
            anywhere.add(name)
        else:
            read.add((row_type.name, name))
    python: set[str] = set()
    for _, module in _sources("sfu/control", "sfu/schema/memory.py"):
        stored = list(_strings(module, ast.Store))
        every = list(_strings(module))
        python |= {name for name in every if every.count(name) > stored.count(name)}
    unread = [
        f"{row_type.name}.{column.name}"
        for row_type in row_types()
        if row_type is not STATE and row_type.name not in ("queue", "mmsghdr")
        for column in row_type.columns
        if (row_type.name, column.name) not in read and column.name not in anywhere | python
    ]
    assert unread == []
