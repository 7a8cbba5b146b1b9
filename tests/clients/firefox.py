"""Firefox over WebDriver BiDi: no geckodriver, one WebSocket, the few commands that the tests need."""

import asyncio
import contextlib
import itertools
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import websockets

from bench.network.namespaces import Namespace
from tests.clients.trust import trust

START_TIMEOUT_S = 60
COMMAND_TIMEOUT_S = 60
_PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "app.update.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "services.settings.server": "",
    "media.gmp-manager.url": "",
    "privacy.reduceTimerPrecision": False,
    "dom.min_background_timeout_value": 4,
    "toolkit.startup.max_resumed_crashes": -1,
}

_ALL_ADDRESSES = {"permissions.default.microphone": 1}
"""A fake microphone in use does not count (Firefox 153); a lasting permission does."""


class FirefoxError(Exception):
    """A command that Firefox refused, or a script that threw."""


class Firefox:
    """One running browser; `open_page` gives tabs."""

    def __init__(self, connection: "websockets.ClientConnection") -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def command(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        return await asyncio.wait_for(future, COMMAND_TIMEOUT_S)

    async def _read(self) -> None:
        async for text in self._connection:
            message = json.loads(text)
            future = self._waiting.pop(message.get("id"), None)
            if future is None or future.done():
                continue
            if message.get("type") == "error":
                future.set_exception(FirefoxError(f"{message.get('error')}: {message.get('message')}"))
            else:
                future.set_result(message["result"])

    async def open_page(self, url: str) -> "FirefoxPage":
        context = (await self.command("browsingContext.create", type="tab"))["context"]
        await self.command("browsingContext.navigate", context=context, url=url, wait="complete")
        return FirefoxPage(self, context)

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.command("browser.close")
        self._reader.cancel()
        await self._connection.close()


class FirefoxPage:
    """One tab: the same two calls as a Playwright page."""

    def __init__(self, browser: Firefox, context: str) -> None:
        self._browser = browser
        self._context = context

    async def evaluate(self, expression: str) -> Any:
        """Run a JavaScript expression (a promise is awaited); returns its value through JSON."""
        wrapped = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        result = await self._browser.command(
            "script.evaluate",
            expression=wrapped,
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] == "exception":
            raise FirefoxError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    async def close(self) -> None:
        await self._browser.command("browsingContext.close", context=self._context)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_profile(folder: Path, all_addresses: bool) -> None:
    preferences = _PREFERENCES | (_ALL_ADDRESSES if all_addresses else {})
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in preferences.items()]
    (folder / "user.js").write_text("\n".join(lines))


def _knowing(names: Mapping[str, str] | None, folder: str) -> list[str]:
    """What precedes a command that is to know these names: to it alone /etc/hosts is another file."""
    if names is None:
        return []
    hosts = Path(folder) / "hosts"
    hosts.write_text("".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **names}.items()))
    return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]


async def _connect(port: int, namespace: Namespace | None) -> "websockets.ClientConnection":
    def loopback() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port))

    url = f"ws://127.0.0.1:{port}/session"
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            with contextlib.suppress(OSError, websockets.WebSocketException):
                connection = namespace.inside(loopback) if namespace is not None else loopback()
                return await websockets.connect(url, sock=connection, max_size=None, proxy=None)
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def running_firefox(
    namespace: Namespace | None = None,
    *,
    all_addresses: bool = False,
    authority: Path | None = None,
    names: Mapping[str, str] | None = None,
) -> AsyncIterator[Firefox]:
    """Start a headless Firefox ESR with a profile of its own; ends it and forgets the profile.

    namespace: where it is to run; None: in ours. all_addresses: its pages offer candidates of every address of the
    machine, as pages do that have a lasting permission for the microphone, and not only of the default route's.
    authority: a certificate in PEM that its store gets. names: host names that it knows -> their addresses.
    """
    with tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as profile:
        _write_profile(Path(profile), all_addresses)
        if authority is not None:
            trust(Path(profile), authority)
        port = _free_port()
        arguments = [
            "--headless",
            "--no-remote",
            "--profile",
            profile,
            f"--remote-debugging-port={port}",
            "about:blank",
        ]
        program = [*(namespace.prefix() if namespace is not None else []), *_knowing(names, profile), "firefox-esr"]
        process = await asyncio.create_subprocess_exec(
            *program, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            browser = Firefox(await _connect(port, namespace))
            await browser.command("session.new", capabilities={})
            yield browser
            await browser.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 10)
            if process.returncode is None:
                process.kill()
                await process.wait()
