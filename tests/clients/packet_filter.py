"""What the network of the tests drops, by nftables."""

import contextlib
from collections.abc import Iterator

from bench.network.namespaces import run_command
from tests.clients.conftest import require_program


def rule(words: str) -> None:
    run_command(f"nft {words}")


@contextlib.contextmanager
def filtering(*rules: str) -> Iterator[None]:
    """While the block lasts, what comes in passes these rules of nftables."""
    require_program("nft")
    rule("add table inet tests")
    try:
        rule("add chain inet tests input { type filter hook input priority 0 ; }")
        for each in rules:
            rule(f"add rule inet tests input {each}")
        yield
    finally:
        rule("delete table inet tests")
