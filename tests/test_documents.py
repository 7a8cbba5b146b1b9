"""What README.md and docs/ point at exists: links with their anchors, files, tests, commands, constants."""

import ast
import re
from pathlib import Path

import pytest

from sfu.schema.codes import Drop

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = ("sfu", "signaling", "bench", "tests", "examples", "scripts", "docs")

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./*-]*[\w/]")
_TEST = re.compile(r"\btest_\w+\b(?!\.py|/)")
_TARGET = re.compile(r"\bmake ([a-z]+)\b")
_COUNTED = re.compile(r'(?:drops|dropped)\["([a-z_ ]+)"\]')
_QUOTED = re.compile(r'"([a-z_ ]+)"')
_MIDDLE = re.compile(r"(?:Of|And|It|Its|The same)\b")
"""How a text begins that goes on from the line above: nobody can read it alone."""
_MIDDLE_OF_A_TABLE = re.compile(
    r"(?:Of|And|It|Its|The same|By|Than|That|Those|From|As (?:received|sent))\b|`\w+` then\b"
)
_CELL_END = re.compile(r"(?<!\\)\|")
_CONSTANT = re.compile(r"(?:(\w+)\.)?([A-Z][A-Z0-9_]+)")


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """How GitHub names a heading in an address."""
    plain = heading.replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    return {anchor(found) for found in _HEADING.findall(_FENCE.sub("", text_of(document)))}


def code_of(document: Path) -> list[str]:
    """What stands between backticks, and the lines of blocks."""
    text = text_of(document)
    blocks = [line for block in _FENCE.findall(text) for line in block.splitlines()]
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    return _CODE.findall(_FENCE.sub("", text)) + blocks + indented


def ids(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_links_lead_to_a_file_and_a_heading(document: Path) -> None:
    lost = []
    for link in _LINK.findall(text_of(document)):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (heading and heading not in anchors(target)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_files_that_are_named_exist(document: Path) -> None:
    named = {path for code in code_of(document) for path in _PATH.findall(code)}
    assert sorted(path for path in named if not list(ROOT.glob(path.rstrip("/")))) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_tests_and_targets_of_make_that_are_named_exist(document: Path) -> None:
    tests = "\n".join(text_of(path) for path in (ROOT / "tests").rglob("test_*.py") if "node_modules" not in path.parts)
    makefile = text_of(ROOT / "Makefile")
    for code in code_of(document):
        for name in _TEST.findall(_PATH.sub("", code)):
            assert re.search(rf"def {name}\(", tests), name
        for target in _TARGET.findall(code):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_way_of_a_packet_names_its_files() -> None:
    text = text_of(ROOT / "docs" / "design.md").partition("## 3. ")[2].partition("## 4. ")[0]
    names = {name for block in _FENCE.findall(text) for name in re.findall(r"\b[a-z]+/[a-z_]+\b", block)}
    folders = (ROOT / "sfu" / "media", ROOT / "sfu", ROOT / "sfu" / "control")
    assert len(names) > 15
    assert sorted(name for name in names if not any((each / f"{name}.py").exists() for each in folders)) == []


def docstrings(path: Path) -> list[str]:
    """Docstrings, and strings under the names that they describe, each with its line."""
    found = []
    for node in ast.walk(ast.parse(text_of(path))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append((statement.lineno, value.value.strip()))
    return [f"{line}: {text}" for line, text in found]


def test_no_docstring_begins_in_the_middle_of_a_sentence() -> None:
    lost, count = [], 0
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for each in docstrings(path) if "node_modules" not in path.parts else ():
                count += 1
                if _MIDDLE.match(each.partition(": ")[2]):
                    lost.append(f"{path.relative_to(ROOT)}:{each}")
    assert count > 3000
    assert lost == []


def test_docstrings_say_in_a_section_what_is_raised() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {each.partition(chr(10))[0]}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "node_modules" not in path.parts
        for each in docstrings(path)
        if re.search(r"\bRaises [A-Z]", each)
    }
    assert found == set()


def test_no_meaning_of_a_column_begins_in_the_middle_of_a_sentence() -> None:
    lines = [line for line in text_of(ROOT / "docs" / "tables.md").splitlines() if line.startswith("| `")]
    assert len(lines) > 500
    cells = [[cell.strip() for cell in _CELL_END.split(line)] for line in lines]
    assert [f"{row[1]}: {row[5]}" for row in cells if _MIDDLE_OF_A_TABLE.match(row[5])] == []


def constants() -> dict[str, set[str]]:
    """Name of a module, without its folder -> names that it assigns, also those of a class."""
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / "sfu").rglob("*.py"), *(ROOT / "signaling").rglob("*.py")]:
        for node in ast.walk(ast.parse(text_of(path))):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                found.setdefault(path.stem, set()).update(n.id for n in names if isinstance(n, ast.Name))
    return found


def test_limits_have_the_names_of_their_constants() -> None:
    """The first column of protocol.md's limits: `module.NAME`, and after it `NAME` of the same module."""
    known = constants()
    text = text_of(ROOT / "docs" / "protocol.md").partition("## 11. Limits")[2]
    checked, lost = 0, []
    for row in text.splitlines():
        module = ""
        for code in _CODE.findall(row.split("|")[1] if row.startswith("|") else ""):
            name = _CONSTANT.fullmatch(code)
            assert name is not None, code
            module = name[1] or module
            checked += 1
            if name[2] not in known.get(module, ()):
                lost.append(f"{module}.{name[2]}")
    assert checked > 60
    assert lost == []


def test_what_each_counter_means_is_told() -> None:
    counted = {drop.name.lower() for drop in Drop}
    for file in (*(ROOT / "sfu").rglob("*.py"), *(ROOT / "signaling").rglob("*.py")):
        counted |= set(_COUNTED.findall(text_of(file)))
    told = {code for document in DOCUMENTS for found in code_of(document) for code in (found, *_QUOTED.findall(found))}
    assert len(counted) > 70
    assert counted - told == set()
