"""The server under test with its own TURN server, and what clients say of the way that their media takes."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signaling.config.options import TlsOptions
from tests.clients.network import ADDRESS
from tests.clients.sfu_server import ServerUnderTest, free_port, running_server

DOMAIN = "turn.example.org"
"""Firefox does not try a server over TLS that has an address in place of a name."""
ROUTES = """(async () => {
  const found = [];
  for (const name of ["publisher", "subscriber"]) {
    const stats = await room.engine.pcManager[name]?.getStats();
    if (!stats) continue;
    const chosen = [...stats.values()].map(({ selectedCandidatePairId }) => selectedCandidatePairId);
    for (const pair of stats.values()) {
      if (pair.type !== "candidate-pair" || !(pair.selected ?? chosen.includes(pair.id)) || !pair.bytesSent) continue;
      const { candidateType, protocol, relayProtocol } = stats.get(pair.localCandidateId);
      found.push(candidateType === "relay" ? `relay ${relayProtocol}` : `direct ${protocol}`);
    }
  }
  return found;
})()"""
"""How the selected pairs that carry something reach the server."""


@dataclass(frozen=True, slots=True)
class TurnPorts:
    """Where the TURN server listens."""

    udp: int
    tcp: int
    tls: int

    def only(self, server: ServerUnderTest, way: str) -> tuple[str, ...]:
        """The rules of a firewall that leaves nothing of media through but TURN over `udp`, `tcp` or `tls`."""
        tcp = {"tcp": self.tcp, "tls": self.tls}
        closed = [server.tcp_port, *(port for name, port in tcp.items() if name != way)]
        udp = f"udp dport != {self.udp} udp sport != {self.udp} drop" if way == "udp" else "meta l4proto udp drop"
        return udp, f"tcp dport {{ {', '.join(map(str, closed))} }} drop"


@contextlib.contextmanager
def running_turn_server(
    folder: Path, tls: TlsOptions | None = None, *, shares_port: bool = False
) -> Iterator[tuple[ServerUnderTest, TurnPorts]]:
    """Start a server whose TURN server listens on all three ways; without a certificate, on two.

    shares_port: TURN over TLS comes to the port of HTTP.
    """
    ports = TurnPorts(free_port(socket.SOCK_DGRAM), free_port(), free_port())
    turn: dict[str, Any] = {"enabled": True, "udp_port": ports.udp, "tcp_port": ports.tcp}
    config: dict[str, Any] = {"turn": turn}
    if tls is not None:
        turn |= {"tls_port": ports.tls, "advertised_tls_port": ports.tls, "domain": DOMAIN}
        config["tls"] = {"cert_file": tls.cert_file, "key_file": tls.key_file}
    (folder / "livekit.yaml").write_text(json.dumps(config))
    extra = ("--config", str(folder / "livekit.yaml"), "--bind", ADDRESS)
    with running_server(folder, node_ip=ADDRESS, extra=extra, port=ports.tls if shares_port else 0) as server:
        server.secure = tls is not None
        yield server, ports
