"""Every parser of what comes from clients has a test with any input, and that runs under a deadline."""

import ast
import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.config.api_keys import hide
from signaling.http.tokens import TokenError, verify
from tests.deadline import PARSER_TESTS, Endless, deadline

TESTS = Path(__file__).parent


def defined() -> dict[str, ast.AST]:
    """Every test function by name."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py"))
    functions = (node for tree in trees for node in ast.walk(tree))
    return {node.name: node for node in functions if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("parser", PARSER_TESTS)
def test_parser_has_its_test_with_any_input(parser: str) -> None:
    test = defined()[PARSER_TESTS[parser]]
    assert isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
    assert any("given" in ast.dump(decorator) for decorator in test.decorator_list)


def test_deadline_ends_a_loop_even_if_exceptions_are_caught() -> None:
    def loop() -> None:
        while True:
            with contextlib.suppress(Exception):  # as is done around parsers
                sum(range(1000))

    with pytest.raises(Endless), deadline(0.05):
        loop()


@settings(deadline=None)
@given(st.text(max_size=200) | st.lists(st.text(max_size=40), min_size=3, max_size=3).map(".".join))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with pytest.raises(TokenError):
        verify(text, hide({"devkey": "secret"}))
