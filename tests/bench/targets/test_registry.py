import pytest

from bench.targets import registry
from examples.bench_target import RelayTarget


def test_a_name_with_a_dot_is_a_module_elsewhere() -> None:
    assert registry.find("examples.bench_target") is RelayTarget
    assert isinstance(registry.make("examples.bench_target", {}), RelayTarget)
    assert "examples.bench_target" not in registry.names()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "no target 'nothing'; there are aiosfu"),
        ("examples.nothing", "No module named 'examples.nothing'"),
        ("examples.publish_file", "has no TARGET"),
        ("", "no target ''"),
        (".janus", "no target '.janus'"),
    ],
)
def test_what_is_no_target_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        registry.check(name)


@pytest.mark.parametrize("name", registry.names())
def test_every_target_of_ours_is_found(name: str) -> None:
    registry.check(name)
    assert callable(registry.find(name))
