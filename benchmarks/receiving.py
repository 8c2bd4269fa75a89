"""Frames from a socket to the journal, one record a frame, as fast as one core takes them.

    python benchmarks/receiving.py [--seconds 10]

    blaster (process, core 0) ──frames──▶ recorder (process, core 1) ──▶ journal

The blaster has its frames ready and only writes; TCP holds it back, so nothing is lost, and the pace is the receiver's.
Beside the recorder, which seals while it receives, stands `signalrcore` with an empty handler.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
import psutil
from capture import program
from figures import Figure, say
from inputs import market_records

import mdcapture as md

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

CONTRACTS = 12
STREAMS = 3 * CONTRACTS
RECORDS = 50_000
SEPARATOR = b"\x1e"
CLOSE = 8
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PEER = """
import logging, sys, threading, time
from signalrcore.hub_connection_builder import HubConnectionBuilder
url, seconds = sys.argv[1], float(sys.argv[2])
connection = HubConnectionBuilder().with_url(url, options={"skip_negotiation": True}).build()
received = 0
def count(_):
    global received
    received += 1
for target in ("GatewayQuote", "GatewayTrade", "GatewayDepth"):
    connection.on(target, count)
opened = threading.Event()
connection.on_open(opened.set)
connection.start()
opened.wait()
for _ in range(int(sys.argv[3])):
    connection.send("SubscribeContractQuotes", ["CON.F.US.EP.H26"])
time.sleep(1)
before, begin_s = received, time.monotonic()
time.sleep(seconds)
print((received - before) / (time.monotonic() - begin_s), flush=True)
import os; os._exit(0)
"""


def framed(payload: bytes) -> bytes:
    """One text frame of a server."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x81, length) + payload
    return struct.pack("!BBH", 0x81, 126, length) + payload


def unmasked(stream: socket.socket) -> Iterator[bytes]:
    """The payload of each frame of a client."""

    def take(count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = stream.recv(count - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    with suppress(ConnectionError):
        while True:
            opcode, length = take(2)
            if opcode & 0x0F == CLOSE:
                return
            length &= 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", take(2))
            mask = take(4)
            yield bytes(byte ^ mask[index % 4] for index, byte in enumerate(take(length)))


def serve(stream: socket.socket, blocks: list[bytes]) -> None:
    """Shake hands, complete what is invoked, and blast away when all streams are subscribed."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += stream.recv(4096)
    key = next(
        line.split(b":")[1].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())  # noqa: S324  # the protocol wants it
    stream.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )
    subscribed = 0
    for text in unmasked(stream):
        for record in filter(None, text.split(SEPARATOR)):
            message = json.loads(record)
            if "protocol" in message:
                stream.sendall(framed(b"{}" + SEPARATOR))
            elif message.get("type") == 1:
                if "invocationId" in message:
                    completion = {"type": 3, "invocationId": message["invocationId"], "result": None}
                    stream.sendall(framed(json.dumps(completion).encode() + SEPARATOR))
                subscribed += message["target"].startswith("Subscribe")
                if subscribed == STREAMS:
                    threading.Thread(target=blast, args=(stream, blocks), daemon=True).start()


def blast(stream: socket.socket, blocks: list[bytes]) -> None:
    """Write until nobody reads any more."""
    with suppress(OSError):
        while True:
            for block in blocks:
                stream.sendall(block)


def blaster(core: int, ready: Connection) -> None:
    """A hub that has everything ready."""
    psutil.Process().cpu_affinity([core])
    frames = [framed(record + SEPARATOR) for _, record in market_records(RECORDS, CONTRACTS)]
    blocks = [b"".join(frames[start : start + 500]) for start in range(0, len(frames), 500)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready.send(server.getsockname()[1])
        while True:
            stream, _ = server.accept()
            threading.Thread(target=serve, args=(stream, blocks), daemon=True).start()


@contextmanager
def hub(core: int) -> Iterator[str]:
    """Run the blaster; gives its address."""
    ready, sender = multiprocessing.Pipe()
    process = multiprocessing.Process(target=blaster, args=(core, sender), daemon=True)
    process.start()
    try:
        yield f"ws://127.0.0.1:{ready.recv()}/hubs/market"
    finally:
        process.terminate()


def recorded(address: str, seconds: float, core: int) -> float:
    """Messages a second that a recorder journals on one core."""
    contracts = dict.fromkeys(json.loads(record)["arguments"][0] for _, record in market_records(5_000, CONTRACTS))
    options = [option for name in contracts for option in ("--contract", name)]
    with tempfile.TemporaryDirectory() as folder, program("simulate") as simulator:
        assert simulator.stdout is not None
        api = json.loads(simulator.stdout.readline())["api"]
        where = ("--gateway", api, "--hub", address, "--lake", folder)
        with program("capture", *where, *options, "--json", "--stats", "none", "--duration", f"{seconds}s") as recorder:
            psutil.Process(recorder.pid).cpu_affinity([core])
            captured = json.loads(recorder.communicate()[0])
        session = md.open_lake(folder).session()
        recv_ns = session.messages().select("recv_ns").collect()["recv_ns"].to_numpy()
        assert len(recv_ns) == captured["messages"]
        return len(recv_ns) / (float(np.ptp(recv_ns)) / 1e9)


def peer(address: str, seconds: float, core: int) -> float:
    """Messages a second that `signalrcore` hands to a handler that does nothing."""
    command = [sys.executable, "-c", PEER, address, str(seconds), str(STREAMS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        psutil.Process(process.pid).cpu_affinity([core])
        return float(process.communicate()[0])


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    cores = sorted(os.sched_getaffinity(0))
    with hub(cores[0]) as address:
        theirs = peer(address, seconds, cores[-1])
        ours = recorded(address, seconds, cores[-1])
    say(
        Figure(
            "socket to journal on one core",
            ours,
            "messages/s",
            "signalrcore, empty handler",
            theirs,
            ours / theirs,
            "≥ 10",
        )
    )


if __name__ == "__main__":
    main()
