"""What holds for all tests."""

from collections.abc import Generator

import pytest

from sfu.compiler import kernel_cache
from tests.deadline import PARSER_DEADLINE_S, PARSER_TESTS, deadline


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run the tests of parsers under a deadline: a loop that input makes endless fails its test and no more."""
    is_parsers = getattr(item, "originalname", item.name) in PARSER_TESTS.values()
    if is_parsers and kernel_cache.is_complete():  # compiling takes minutes
        with deadline(PARSER_DEADLINE_S):
            yield
    else:
        yield
