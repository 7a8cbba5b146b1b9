"""Janus: finding it, configuring it, and its signalling. `bench.targets.janus` is the target made of these.

Its API is JSON over a WebSocket: a session, a handle per PeerConnection, messages to the handle's plugin, here the
VideoRoom (https://janus.conf.meetecho.com/docs/videoroom).
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

HOW_TO_GET_IT = (
    "there is no janus on the PATH: apt-get install --no-install-recommends janus, or unpack the packages that this "
    "downloads with `dpkg -x` and give the folder as the option root"
)
PLUGIN, TRANSPORT = "libjanus_videoroom.so", "libjanus_websockets.so"
ROOM_EXISTS = 427
LINES_OF_LDD = re.compile(r"^\s*(\S+) => (\S+)", re.MULTILINE)
CRYPTO = {"libnss3.so": "NSS", "libcrypto.so": "OpenSSL", "libmbedcrypto.so": "Mbed TLS"}
"""Crypto libraries that a libsrtp may be linked with, by file name. Linked with none, it uses its own AES."""
ANSWER_TIMEOUT_S = 20.0


class JanusFailed(Exception):
    """Janus is not installed, or answered with an error."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The files of one Janus."""

    binary: Path
    modules: Path
    """The folder that holds the folders `plugins` and `transports`."""
    libraries: tuple[Path, ...]
    """Folders of libraries that are searched before the system's."""

    @classmethod
    def find(cls, root: str, srtp: str) -> Self:
        """Find an installation.

        Args:
            root: the folder of unpacked packages; empty: use the Janus on PATH.
            srtp: a folder with another libsrtp2.so.1 to use; empty: none.

        Raises:
            JanusFailed: there is none.
        """
        binary = Path(root, "usr/bin/janus") if root else Path(shutil.which("janus") or "")
        if not binary.is_file():
            raise JanusFailed(f"there is no {binary}" if root else HOW_TO_GET_IT)
        libraries = binary.parents[1] / "lib"
        modules = next(libraries.glob("*/janus/plugins"), None)
        if modules is None:
            raise JanusFailed(f"{binary} has no plugins in {libraries}/*/janus/plugins")
        folders = (*([Path(srtp)] if srtp else []), *([modules.parents[1]] if root else []))
        return cls(binary, modules.parent, folders)

    def command(self, arguments: Iterable[str]) -> list[str]:
        """Return the words of the command that starts Janus with `arguments`."""
        path = ":".join(map(str, self.libraries))
        return [*(["env", f"LD_LIBRARY_PATH={path}"] if path else []), str(self.binary), *arguments]

    def versions(self, name: str) -> dict[str, str]:
        """Return the versions of Janus, which the report calls `name`, and of its libsrtp with its crypto library."""
        text = self._run(str(self.binary), "--help")
        version = re.search(r"Janus version: \d+ \(([\d.]+)\)", text)
        srtp = self._linked(self.binary).get("libsrtp2.so.1", "")
        return {name: version[1] if version else "unknown", f"libsrtp of {name}": self._describe_srtp(Path(srtp))}

    def _describe_srtp(self, library: Path) -> str:
        if not library.is_file():
            return "unknown"
        number = re.search(rb"libsrtp2? (\d+\.\d+\.\d+)", library.read_bytes())
        linked = self._linked(library)
        crypto = next(
            (name for prefix, name in CRYPTO.items() if any(each.startswith(prefix) for each in linked)), "own"
        )
        return f"{number[1].decode() if number else '?'} with {crypto} cryptography, {library}"

    def _linked(self, file: Path) -> dict[str, str]:
        """Return the shared libraries of a file by name, with the paths at which they are found."""
        return dict(LINES_OF_LDD.findall(self._run("ldd", str(file))))

    def _run(self, *words: str) -> str:
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, self.libraries))}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


def write_configuration(folder: Path, modules: Path, address: str, port: int, loops: int) -> None:
    """Write Janus's files into `folder`.

    Args:
        folder: where the files go.
        modules: the folder of Janus's plugins and transports.
        address: the only address for media; Janus skips loopback addresses.
        port: the WebSocket's port, on loopback.
        loops: event loops for all PeerConnections together; 0: a thread for each, which is Janus's default.
    """
    empty = folder / "empty"
    empty.mkdir()
    general = {
        "configs_folder": str(folder),
        "plugins_folder": str(modules / "plugins"),
        "transports_folder": str(modules / "transports"),
        "events_folder": str(empty),
        "loggers_folder": str(empty),
        "debug_level": 3,  # errors and warnings
        "session_timeout": 0,  # sessions end with their WebSocket
        **({"event_loops": loops} if loops else {}),
    }
    others = {kind: ",".join(_others(modules / kind, kept)) for kind, kept in _KEPT.items()}
    sections: dict[str, dict[str, Any]] = {
        "general": general,
        "nat": {"ice_lite": True, "ice_enforce_list": address},
        "media": {"ipv6": False},
        **{kind: {"disable": names} for kind, names in others.items()},
    }
    (folder / "janus.jcfg").write_text(configuration(sections))
    web_socket = {"ws": True, "ws_port": port, "ws_ip": "127.0.0.1", "wss": False, "json": "plain"}
    (folder / "janus.transport.websockets.jcfg").write_text(configuration({"general": web_socket}))
    (folder / "janus.plugin.videoroom.jcfg").write_text(configuration({"general": {"string_ids": True}}))


_KEPT = {"plugins": PLUGIN, "transports": TRANSPORT}


def _others(folder: Path, kept: str) -> list[str]:
    return sorted(path.name for path in folder.glob("*.so") if path.name != kept)


def configuration(sections: dict[str, dict[str, Any]]) -> str:
    """Return the sections as text in the syntax of libconfig."""
    return "".join(
        f"{name}: {{\n" + "".join(f"\t{key} = {_literal(value)}\n" for key, value in values.items()) + "}\n"
        for name, values in sections.items()
    )


def _literal(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


class JanusSession:
    """A session of Janus's API, to which all handles of the benchmark belong."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._session = 0
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.up: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        """Set by handle, when Janus says that its PeerConnection is up."""
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the WebSocket.

        Raises:
            OSError: nobody listens there.
        """
        self = cls(await connect(url, subprotocols=[Subprotocol("janus-protocol")], ping_interval=None, max_size=None))
        self._session = (await self._ask({"janus": "create"}))["data"]["id"]
        return self

    async def attach(self) -> int:
        """Return a new handle of the VideoRoom."""
        answer = await self._ask({"janus": "attach", "plugin": "janus.plugin.videoroom"})
        return int(answer["data"]["id"])

    async def message(
        self, handle: int, body: dict[str, Any], kind: str = "", sdp: str = ""
    ) -> tuple[dict[str, Any], str]:
        """Send the plugin a request, with an SDP of a `kind` if there is one; return the answer's data and SDP."""
        request: dict[str, Any] = {"janus": "message", "handle_id": handle, "body": body}
        if sdp:
            request["jsep"] = {"type": kind, "sdp": sdp, "trickle": False}
        answer = await self._ask(request)
        data: dict[str, Any] = answer["plugindata"]["data"]
        if "error" in data and data.get("error_code") != ROOM_EXISTS:
            raise JanusFailed(f"{body['request']}: {data['error']}")
        return data, str(answer.get("jsep", {}).get("sdp", ""))

    async def detach(self, handle: int) -> None:
        """End a handle and its PeerConnection."""
        await self._ask({"janus": "detach", "handle_id": handle})
        self.up.pop(handle, None)

    async def close(self) -> None:
        """End the session."""
        await self._socket.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        transaction = secrets.token_hex(8)
        future = self._waiting[transaction] = asyncio.get_running_loop().create_future()
        session = {"session_id": self._session} if self._session else {}
        try:
            await self._socket.send(json.dumps({**request, **session, "transaction": transaction}))
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer: dict[str, Any] = await future
        finally:
            del self._waiting[transaction]
        if answer["janus"] == "error":
            raise JanusFailed(f"{request['janus']}: {answer['error']['reason']}")
        return answer

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                self._receive(json.loads(text))
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(JanusFailed("Janus closed the connection"))

    def _receive(self, answer: dict[str, Any]) -> None:
        if answer["janus"] == "webrtcup":
            self.up[answer["sender"]].set()
        future = self._waiting.get(answer.get("transaction", ""))
        # an `ack` says that the answer will come as an event
        if future is not None and not future.done() and answer["janus"] != "ack":
            future.set_result(answer)
