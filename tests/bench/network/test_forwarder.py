"""The forwarding process between two sockets that stand for its devices."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from bench.network.bottleneck import ROOT
from bench.network.counts import DOWN, UP, Record
from bench.network.link import Conditions
from tests.bench.support.packets import packet

RTP = packet(b"\x80\x60" + bytes(6) + (77).to_bytes(4, "big") + bytes(500))
PATIENCE_S = 20


@contextmanager
def forwarding(down: Conditions, up: Conditions) -> Iterator[tuple[socket.socket, socket.socket, Any]]:
    """The server's side, the client's side, and the process."""
    (server, outside), (client, inside) = (socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    ends = outside.fileno(), inside.fileno()
    settings = {"outside": ends[0], "inside": ends[1], DOWN: asdict(down), UP: asdict(up), "seed": 1}
    command = [sys.executable, "-m", "bench.network.forwarder", json.dumps(settings)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=ends, cwd=ROOT)
    with server, outside, client, inside, process:
        for end in (server, client):
            end.settimeout(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.readline()
        yield server, client, process
        process.kill()


def ended(process: Any) -> Record:
    process.stdin.close()
    return Record.from_json(json.loads(process.stdout.readline()))


def test_it_carries_packets_both_ways_and_counts_them_from_the_begin() -> None:
    with forwarding(Conditions(rate=((0, 1e6),), delay_ms=5), Conditions(loss=((0, 1.0),))) as (
        server,
        client,
        process,
    ):
        server.send(RTP)  # before the begin
        assert client.recv(2000) == RTP
        process.stdin.write(b"begin\n")
        process.stdin.flush()
        began = float(process.stdout.readline())
        for _ in range(3):
            server.send(RTP)
            client.send(RTP)  # all of these are lost
        server.send(b"\x60" + bytes(60))  # IPv6 is not carried
        assert [client.recv(2000) for _ in range(3)] == [RTP] * 3
        assert time.monotonic() - began > 3 * 8 * len(RTP) / 1e6 + 0.005
        record = ended(process)
    sent, returned = ([count for *_, count in record.select(way, 0, PATIENCE_S)] for way in (DOWN, UP))
    assert record.began == began
    assert (sum(count.packets for count in sent), sum(count.size for count in sent)) == (3, 3 * len(RTP))
    assert max(count.waited_ms for count in sent) > 0
    assert max(count.gap_ms for count in sent) > 1000 * 8 * len(RTP) / 1e6 - 0.001
    assert sum(count.lost for count in returned) == 3
    assert {stream for _, _, stream in record.counts} == {"77"}
    assert record.latest_ms >= record.late_ms > 0


def test_it_ends_although_packets_are_still_on_their_way() -> None:
    with forwarding(Conditions(delay_ms=60_000), Conditions()) as (server, _client, process):
        server.send(RTP)
        record = ended(process)
        assert process.wait(PATIENCE_S) == 0
    assert record.late_ms > 0
