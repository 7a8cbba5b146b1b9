"""The image's Dockerfile says what the documents say, and copies all that is installed. No image is built here."""

import re
import tomllib
from pathlib import Path

from signaling.config.configuration import Flags, load_config

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DEPLOY = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def of(instruction: str) -> list[str]:
    """The arguments of each such instruction, in their order."""
    return re.findall(rf"^{instruction} (.+)$", TEXT, re.MULTILINE)


def test_it_installs_as_the_document_says() -> None:
    told = re.findall(r"^    (?:\S*python3|/opt/aiosfu/bin/\w+) .*$", DEPLOY, re.MULTILINE)
    written = [command.replace("--no-cache-dir ", "").replace("/src/", "") for command in of("RUN")]
    assert [command.strip() for command in told[:4]] == written[:4]
    assert len(told) >= 4


def test_it_has_the_ports_and_the_command_of_livekits_image() -> None:
    config = load_config(Flags(dev=True), {})
    ports = f"{config.port}/tcp {config.ice.tcp_port}/tcp {config.udp_ports[0]}/udp"
    assert of("EXPOSE") == [ports]
    assert of("ENTRYPOINT") == ['["/livekit-server"]']
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    (program,) = re.findall(r"ln -s /opt/aiosfu/bin/(\S+) /livekit-server", TEXT)
    assert program in scripts


def test_all_that_is_installed_gets_into_it() -> None:
    taken = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {name.removesuffix("*") for name in found}
    documents = {project["project"]["readme"], *project["project"]["license-files"]}
    assert taken == packages | documents | {"pyproject.toml", "requirements.lock"}
    assert [name for name in taken if not (ROOT / name).exists()] == []
