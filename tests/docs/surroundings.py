"""Messages of docs/reference/errors.md about the gateway, the files and databases, each with what brings it about."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_builder import START_NS, recording, trade
from place import NOBODY, Place, answering, raised
from small_disk import SmallDisk
from tapes import CONTRACT

from mdcapture.gateway.hub import Hub
from mdcapture.gateway.rest import Credentials, RestClient
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.interop.importing import only_import
from mdcapture.lake.layout import session_id_at
from mdcapture.lake.locks import hold
from mdcapture.wire.signalr import HubProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Question = Callable[[RestClient], Awaitable[object]]

__all__ = ["DATABASES", "FILES", "GATEWAYS"]

# Whom to ask, and how.


def asked(gateway: str, question: Question = RestClient.token, *, timeout_s: float = 15.0) -> tuple[int, str]:
    """What a client says that asks a gateway once."""

    async def ask() -> None:
        me, once = Credentials("me", "demo"), RetryPolicy(attempts=0)
        async with RestClient(gateway, me, policy=once, timeout_s=timeout_s) as client:
            await question(client)

    return raised(lambda: asyncio.run(ask()))


def answered(status: int, body: bytes = b"{}", question: Question = RestClient.token) -> tuple[int, str]:
    """What a client says of a gateway that answers everything so."""
    with answering(status, body) as where:
        return asked(f"http://{where}", question)


def told(answer: str, question: Question = RestClient.token) -> tuple[int, str]:
    """What a client says of a gateway that lets everybody in, and tells all of them the same."""
    return answered(200, f'{{"token": "t", {answer}}}'.encode(), question)


def joined(hub: str) -> tuple[int, str]:
    """What is said of a hub to which nobody gets through."""

    class Unheard:
        def on_records(self, *_: object) -> None: ...

        def on_incident(self, *_: object) -> None: ...

    async def token(_: str | None = None) -> str:
        return "t"

    async def join() -> None:
        await Hub(f"ws://{hub}/hubs/market", token, Unheard(), policy=RetryPolicy(attempts=1, first_s=0.01)).run()

    return raised(lambda: asyncio.run(join()))


def no_answer(_: Place) -> tuple[int, str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return asked(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.1)


def no_web_server(place: Place) -> tuple[int, str]:
    def talk() -> None:
        client, _ = server.accept()
        with client:
            client.recv(65536)
            client.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=talk, daemon=True).start()
        return place.run("contracts", "MNQ", "--gateway", f"http://127.0.0.1:{server.getsockname()[1]}")


def no_hub(_: Place) -> tuple[int, str]:
    with answering(200, b"Welcome") as where:
        return joined(where)


def stopped_early(place: Place) -> tuple[int, str]:
    with place.recorder(gateway=f"http://{NOBODY}") as recorder:
        recorder.start()
        recorder.stop()
        return raised(recorder.wait)


def no_gateway_of_ours(place: Place) -> tuple[int, str]:
    """Python takes a file of this folder for a library of that name."""
    place.written("typer.py", "")
    return place.run("demo")


GATEWAYS: dict[str, Callable[[Place], tuple[int, str]]] = {
    "no connection to …": lambda _: asked(f"http://{NOBODY}"),
    "the name of … can't be resolved": lambda _: asked("https://nowhere.invalid"),
    "no trusted TLS connection to …": lambda p: asked(p.gateway.replace("http", "https")),
    "given up after … tries in a row": lambda _: joined(NOBODY),
    "is in trouble or under maintenance": lambda _: answered(503),
    "too many requests": lambda _: answered(429),
    "the gateway refuses …": lambda p: p.in_the_environment(MDCAPTURE_API_KEY="wrong"),
    "… answers with something else than the gateway's JSON": lambda _: answered(200, b"<html>Welcome</html>"),
    "… answers with something else than HTTP": no_web_server,
    "is this the gateway's address?": lambda _: answered(404),
    "… gave no token": lambda _: answered(200, b'{"success": true, "errorCode": 0}'),
    "… is no WebSocket server": no_hub,
    "the gateway can't make sense of the request": lambda _: answered(400),
    "the gateway answers … with errorCode …: try again later": lambda _: told('"success": false, "errorCode": 99'),
    "the gateway knows no contract …": lambda _: told(
        '"success": true, "contracts": []', lambda client: client.contract("CON.F.US.X")
    ),
    "a bar without a time that can be read": lambda _: told(
        '"success": true, "bars": [{"t": "yesterday", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}]',
        lambda client: client.bars(CONTRACT, 0, 1),
    ),
    "… did not answer in time": no_answer,
    "answers with more than … bytes": lambda _: answered(200, bytes(17 << 20)),
    "a record is longer than the … bytes allowed": lambda _: raised(lambda: HubProtocol(10).receive(bytes(20))),
    "the server's first record is no SignalR handshake": lambda _: raised(
        lambda: HubProtocol().receive(b"220 mail.example\x1e")
    ),
    "ended before the gateway could be reached": stopped_early,
    "the local gateway did not start": no_gateway_of_ours,
}


# What the disk has, takes and keeps.


def held_by_another(place: Place) -> tuple[int, str]:
    lock = place.folder / "owner.lock"
    with hold(lock), ExitStack() as second:
        return raised(lambda: second.enter_context(hold(lock)))


def imported_by_another(place: Place) -> tuple[int, str]:
    tape = Path(place.tape())
    with only_import(place.folder / "new", sha256(tape.read_bytes()).hexdigest(), "another's"):
        return place.bring(str(tape))


def newer(manifest: Path) -> None:
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(values | {"schema_version": 999}))


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def unfinished(place: Place) -> tuple[int, str]:
    with recording(place.folder / "open") as session:
        return place.run("prune", session.session_id, "--yes", "--lake", str(session.root))


def orphaned(place: Place) -> tuple[int, str]:
    """A recorder died, and then its manifest was lost."""
    with recording(place.folder / "open") as session:
        session.receive(trade())
    next((session.root / "sessions").glob("*.json")).unlink()
    return place.run("recover", "--lake", str(session.root))


def back_up(place: Place, lake: Path) -> tuple[int, str]:
    """What is damaged stands in the answer: the other sessions are copied."""
    answer = io.StringIO()
    code, _ = place.run("backup", "backup", "--lake", str(lake), answer=answer)
    return code, answer.getvalue()


def changed_copy(place: Place, **values: object) -> tuple[int, str]:
    """Back the lake up to where the manifest says something else by now."""
    back_up(place, place.lake)
    manifest = next(Path("backup").glob("sessions/*.json"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))
    return back_up(place, place.lake)


def full(place: Place) -> tuple[int, str]:
    """The disk has room for the manifest, and not for what arrives."""
    with SmallDisk(4_000), place.recorder(disk_stop_mb=0) as recorder:
        recorder.start()
        while (figures := recorder.figures()) is None or not figures.disk_failing:
            assert recorder.wait(0.01) is None
        recorder.stop()
        return raised(recorder.wait)


def in_the_way(place: Place) -> tuple[int, str]:
    """Something else has the name of a table's folder."""
    (place.folder / "new").mkdir()
    place.written("new/messages", "")
    with place.recorder(count=5) as recorder:
        return raised(recorder.run)


def in_a_loop(place: Place) -> tuple[int, str]:
    """A thousand captures began and were killed."""
    for attempt in range(1, 1000):
        (place.folder / "new/journal" / session_id_at(START_NS, attempt)).mkdir(parents=True)
    with place.recorder(lambda: START_NS) as recorder:
        return raised(recorder.run)


def shortened(rows: pa.Table) -> pa.Table:
    return rows.slice(0, len(rows) - 1)


def garbled(rows: pa.Table) -> pa.Table:
    texts = pa.array([b"\xff"] * len(rows), pa.binary()).view(pa.string())
    at = rows.schema.get_field_index("payload")
    return rows if at < 0 else rows.set_column(at, "payload", texts)


def spoilt(place: Place, change: Callable[[pa.Table], pa.Table]) -> tuple[int, str]:
    """The disk says that it has a file, and has something else."""

    def sync(number: int) -> None:
        for file in place.folder.rglob("*.parquet.tmp"):
            with suppress(FileNotFoundError):  # another one, which has been given up meanwhile
                if os.path.samestat(os.fstat(number), file.stat()):
                    pq.write_table(change(pq.ParquetFile(file).read()), file)

    with pytest.MonkeyPatch.context() as disk:
        disk.setattr(os, "fsync", sync)
        return place.bring(place.tape())


FILES: dict[str, Callable[[Place], tuple[int, str]]] = {
    "can't write …": lambda p: p.run("import", p.tape(), "--lake", str(Path(p.written("file", "")) / "lake")),
    "… can't be written: …": lambda p: p.ask("plot", "price", "-o", "nowhere/price.png"),
    "log_file: … can't be written": lambda p: p.capture("--contract", "MNQ", "--log-file", "nowhere/log"),
    "less than disk_stop_mb": lambda p: p.capture(
        "--contract", "MNQ", "--set", "disk_stop_mb=1e12", "--set", "memory_check_s=0.1"
    ),
    "… is held by process …": held_by_another,
    "… is being imported by another process": imported_by_another,
    "a sealed file is missing": lambda p: p.run(
        "sql", "from trades", "--lake", str(p.damaged("trades/*/*/*.parquet", Path.unlink))
    ),
    "a file of the lake is damaged or gone (…)": lambda p: p.run(
        "analyze", "--lake", str(p.damaged("trades/*/*/*.parquet", Path.unlink))
    ),
    "… is no manifest …": lambda p: p.run(
        "sessions", "--lake", str(p.damaged("sessions/*.json", lambda file: file.write_text("{")))
    ),
    "… was written by a newer mdcapture …": lambda p: p.run(
        "sessions", "--lake", str(p.damaged("sessions/*.json", newer))
    ),
    "… is damaged: restore it": lambda p: p.run(
        "simulate", "--session", "latest", "--once", "--lake", str(p.damaged("messages/*/*/*", flipped))
    ),
    "… has not ended": unfinished,
    "… can't be read (…): restore it": lambda p: p.run(
        "simulate", "--session", "latest", "--once", "--lake", str(p.damaged("messages/*/*/*", a_folder))
    ),
    "… has messages, but … is missing": orphaned,
    "… is not what its checksum says: its session is not copied": lambda p: back_up(
        p, p.damaged("messages/*/*/*", flipped)
    ),
    "… can't be read (…): its session is not copied": lambda p: back_up(p, p.damaged("messages/*/*/*", a_folder)),
    "the copy has another session of this name": lambda p: changed_copy(p, created_ns=1),
    "the copy has messages beyond the lake's last": lambda p: changed_copy(p, next_seq=999_999),
    "…; this was the last try, and … messages… are lost": full,
    "… could not be sealed (…)": in_the_way,
    "… holds … rows where … were written": lambda p: spoilt(p, shortened),
    "… holds values that no reader takes (…)": lambda p: spoilt(p, garbled),
    "… sessions of … began in one second": in_a_loop,
}

DATABASES: dict[str, Callable[[Place], tuple[int, str]]] = {
    "see that the server runs and can be reached": lambda p: p.run(
        "sessions", "--lake", f"postgresql://me@{NOBODY}/market"
    ),
}
