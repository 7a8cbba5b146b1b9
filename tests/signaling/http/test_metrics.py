"""signaling/http/metrics.py: where metrics are served, and to whom; real sockets, a played engine."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import httpx
import jwt
import pytest
import websockets
from pydantic import SecretStr

from signaling.config.api_keys import hide
from signaling.config.configuration import Config, PrometheusOptions
from signaling.http.listener import running
from signaling.http.metrics import may_read
from signaling.http.sockets import PortInUse, bind_sockets
from tests.signaling.http.test_server import PlayedEngine, PlayedRooms, token

CONFIG = Config(
    keys=hide({"devkey": "secret"}), port=0, bind_addresses=("127.0.0.1",), bind_addresses_given=True, udp_ports=(0,)
)
PROTECTED = PrometheusOptions(username="scraper", password=SecretStr("a password"))
Get = Callable[..., httpx.Response]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def serving(config: Config) -> AsyncIterator[str]:
    """Base URL of the main port."""
    async with running(config, PlayedEngine(), PlayedRooms(), bind_sockets(config)) as addresses:
        yield f"http://127.0.0.1:{addresses[0][1]}"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


async def test_without_a_port_there_is_no_route(http: httpx.AsyncClient) -> None:
    async with serving(CONFIG) as url:
        assert (await http.get(f"{url}/metrics")).status_code == 404


async def test_a_port_of_its_own_serves_metrics_and_nothing_else(http: httpx.AsyncClient) -> None:
    config = replace(CONFIG, prometheus=PrometheusOptions(port=free_port()))
    async with serving(config) as url:
        assert (await http.get(f"{url}/metrics")).status_code == 404
        own = f"http://127.0.0.1:{config.prometheus.port}"
        answer = await http.get(f"{own}/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "aiosfu_packets_received_total 7.0" in answer.text
        assert 'aiosfu_drops_total{reason="srtp_auth"} 3.0' in answer.text
        assert (await http.post(f"{own}/metrics")).status_code == 405
        for path in ("/", "/rtc/validate", "/demo/"):
            assert (await http.get(own + path)).status_code == 404
    with pytest.raises(httpx.ConnectError):
        await http.get(f"{own}/metrics")


async def test_joins_on_the_main_port_are_counted(http: httpx.AsyncClient) -> None:
    config = replace(CONFIG, development=True)
    async with serving(config) as url:
        address = url.replace("http", "ws")
        async with websockets.connect(f"{address}/rtc?access_token={token()}", proxy=None) as client:
            await client.recv()
        with pytest.raises(websockets.InvalidStatus):
            async with websockets.connect(f"{address}/rtc?access_token={jwt.encode({}, 'x')}", proxy=None):
                pass
        text = (await http.get(f"{url}/metrics")).text
    assert 'aiosfu_joins_total{result="admitted"} 1.0' in text
    assert 'aiosfu_joins_total{result="unauthorized"} 1.0' in text


async def test_development_serves_them_on_the_main_port(http: httpx.AsyncClient) -> None:
    async with serving(replace(CONFIG, development=True)) as url:
        answer = await http.get(f"{url}/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_a_password_is_asked_for_on_both_ports(http: httpx.AsyncClient) -> None:
    config = replace(CONFIG, development=True, prometheus=replace(PROTECTED, port=free_port()))
    async with serving(config) as url:
        for base in (url, f"http://127.0.0.1:{config.prometheus.port}"):
            refused = await http.get(f"{base}/metrics")
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic ")
            assert "aiosfu" not in refused.text
            assert (await http.get(f"{base}/metrics", auth=("scraper", "another"))).status_code == 401
            assert (await http.get(f"{base}/metrics", auth=("scraper", "a password"))).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic \xff",
        "Bearer c2NyYXBlcjphIHBhc3N3b3Jk",
        "Basic c2NyYXBlcg==",
        "Basic OmEgcGFzc3dvcmQ=",
        "Basic c2NyYXBlcjphIHBhc3N3b3JkCg==",
    ],
)
def test_anything_but_user_name_and_password_is_refused(authorization: str) -> None:
    assert not may_read(authorization, PROTECTED)


def test_scheme_is_read_in_any_case_and_either_half_protects() -> None:
    assert may_read("basic c2NyYXBlcjphIHBhc3N3b3Jk", PROTECTED)
    assert may_read("", PrometheusOptions())
    assert not may_read("", PrometheusOptions(password=SecretStr("x")))
    assert not may_read("", PrometheusOptions(username="x"))


async def test_a_taken_port_is_known_before_the_engine_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        engine = PlayedEngine()
        config = replace(CONFIG, prometheus=PrometheusOptions(port=port))
        with pytest.raises(PortInUse, match=str(port)):
            async with running(config, engine, PlayedRooms(), bind_sockets(config)):
                pass
    assert engine.calls == []
