"""What holds for all tests."""

from collections.abc import Generator

import pytest

from sfu.compiler import kernel_cache
from tests.deadline import PARSER_DEADLINE_S, PARSER_TESTS, deadline
from tests.parts import PARTS, SHARED, divided


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of a part, which `scripts/run-tests` makes."""
    parser.addoption("--part", choices=PARTS, help="only tests that compute, drive real clients, or have to run alone")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse several processes for tests that must run alone."""
    if config.getoption("numprocesses", None) and config.getoption("part") not in SHARED:
        parts = " and ".join(f"--part={part}" for part in SHARED)
        raise pytest.UsageError(f"several processes (-n) are for {parts}: other tests would disturb each other")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the part that was chosen."""
    if part := config.getoption("part"):
        items[:], others = divided(items, part)
        config.hook.pytest_deselected(items=others)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run the tests of parsers under a deadline: a loop that input makes endless fails its test and no more."""
    is_parsers = getattr(item, "originalname", item.name) in PARSER_TESTS.values()
    if is_parsers and kernel_cache.is_complete():  # compiling takes minutes
        with deadline(PARSER_DEADLINE_S):
            yield
    else:
        yield
