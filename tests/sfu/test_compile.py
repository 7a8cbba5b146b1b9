"""Compiling ahead: what is compiled, how progress is told, and that a second time costs nothing."""

import pytest
from numba import njit

from sfu import compile as compiling
from sfu import kernel_cache


def test_every_kernel_of_the_package_is_known() -> None:
    found = compiling.kernels()
    assert {"sfu.loop.media_loop", "sfu.stun.handle_stun", "sfu.rings.push_command", "sfu.wire.get_u16"} <= set(found)
    assert all(name.startswith("sfu.") for name in found)


def test_each_function_is_reported_once_when_it_was_compiled() -> None:
    @njit
    def leaf(x):  # type: ignore[no-untyped-def]
        return x + 1

    @njit
    def caller(x):  # type: ignore[no-untyped-def]
        return leaf(x) * 2

    lines: list[tuple[int, int, str]] = []
    with compiling._reporting(7, lambda *line: lines.append(line)):
        caller(1)
        caller(1.5)
    assert [(done, total, name.split(".")[-1]) for done, total, name in lines] == [(1, 7, "leaf"), (2, 7, "caller")]


def test_nothing_is_done_when_everything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel_cache, "is_complete", lambda: True)
    monkeypatch.setattr(compiling, "_call_everything", lambda: pytest.fail("compiled again"))
    compiling.main()
    assert capsys.readouterr().out.startswith("kernels are ready in ")
