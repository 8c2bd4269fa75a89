"""Sessions made by hand: records in the gateway's form, journaled and sealed when a test says so."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from mdcapture.lake.files import sha256_of
from mdcapture.lake.layout import session_of
from mdcapture.lake.manifest import Contract, read_manifest, write_manifest
from mdcapture.lake.schema import Incident, IncidentKind, SignalRow
from mdcapture.lake.seal import finish, seal
from mdcapture.lake.writer import OpenSession, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ES = "CON.F.US.EP.H24"
START_NS = 1_703_545_200_106_846_211
MS = 1_000_000


def message(target: str, contract_id: str, entries: object) -> bytes:
    record = {"type": 1, "target": target, "arguments": [contract_id, entries]}
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def quote(contract_id: str = ES, **fields: object) -> bytes:
    return message("GatewayQuote", contract_id, {"timestamp": "2023-12-25T23:00:00.1+00:00", **fields})


def trade(contract_id: str = ES, price: float = 4800.25, volume: int = 1, side: int = 0, **fields: object) -> bytes:
    entry = {"timestamp": "2023-12-25T23:00:00.085+00:00", "price": price, "volume": volume, "type": side, **fields}
    return message("GatewayTrade", contract_id, [entry])


def depth(contract_id: str = ES, *entries: Mapping[str, object] | None) -> bytes:
    rows = [
        None if entry is None else {"timestamp": "2023-12-25T23:00:00Z", "price": 4800.0, "volume": 1, **entry}
        for entry in entries
    ]
    return message("GatewayDepth", contract_id, rows)


class Recording:
    """A session that is being captured; its clock goes a millisecond on with each call."""

    def __init__(self, session: OpenSession, start_ns: int) -> None:
        self.root = session.root
        self.session_id = session.session_id
        self.now_ns = start_ns
        self._journal = session.journal

    def receive(self, *records: bytes, step_ns: int = MS) -> None:
        self.now_ns += step_ns
        self._journal.append(self.now_ns, 1, list(records))
        self._journal.flush()

    def note(self, kind: IncidentKind, stream: str | None = None, contract_id: str | None = None) -> None:
        self.tell(Incident(kind, stream, contract_id, self.now_ns, None, "made by hand"))

    def tell(self, incident: Incident) -> None:
        self._journal.note(self.now_ns, incident)
        self._journal.flush()

    def say(self, *rows: SignalRow) -> None:
        self._journal.signal(list(rows))
        self._journal.flush()

    def roll(self) -> None:
        self._journal.retire(self._journal.roll())

    def seal(self) -> None:
        self.roll()
        seal(self.root, self.session_id, self._journal.segment - 1)

    def finish(self) -> None:
        self._journal.close()
        finish(self.root, self.session_id, "sealed")


@contextmanager
def recording(root: Path, start_ns: int = START_NS, tick_sizes: dict[str, float] | None = None) -> Iterator[Recording]:
    contracts = [Contract(contract_id=one, tick_size=size) for one, size in (tick_sizes or {}).items()]
    with open_session(root, start_ns, contracts=contracts) as session:
        yield Recording(session, start_ns)


def record(root: Path, *records: bytes, start_ns: int = START_NS) -> str:
    """A finished session of these records; its id."""
    with recording(root, start_ns) as session:
        session.receive(*records)
        session.finish()
    return session.session_id


def record_in_bursts(root: Path, bursts: int, burst: int) -> None:
    """A session of trades numbered by their volume, sealed after each burst, and merged as it grows."""
    with recording(root) as session:
        for first in range(0, bursts * burst, burst):
            for number in range(first, first + burst):
                session.receive(trade(volume=number))
            session.seal()
        session.finish()


def forge(lake: Path, path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change rows, and let the manifest believe it: only the accounts can tell."""
    before = pq.ParquetFile(path)
    table = change(before.read())
    with pq.ParquetWriter(path, table.schema.remove_metadata()) as writer:
        writer.write_table(table.replace_schema_metadata())
        writer.add_key_value_metadata(before.metadata.metadata)
    manifest = read_manifest(lake, session_of(path.relative_to(lake).as_posix()))
    relative = path.relative_to(lake).as_posix()
    at = next(at for at, file in enumerate(manifest.files) if file.path == relative)
    file = manifest.files[at]
    manifest.counts[file.table] += len(table) - file.rows
    seq, recv_ns = table["seq"].to_numpy(), table["recv_ns"].to_numpy()
    manifest.files[at] = type(file)(
        path=file.path,
        table=file.table,
        contract_id=file.contract_id,
        rows=len(table),
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        first_recv_ns=int(recv_ns[0]),
        last_recv_ns=int(recv_ns[-1]),
        first_seq=int(seq.min()),
        last_seq=int(seq.max()),
    )
    write_manifest(lake, manifest)


def no_text(rows: pa.Table) -> pa.Table:
    """Rows whose payloads are bytes that are no UTF-8."""
    texts = pa.array([b"\xc3"] * len(rows), pa.binary()).view(pa.string())
    return rows.set_column(rows.schema.get_field_index("payload"), "payload", texts)


if __name__ == "__main__":
    record_in_bursts(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
