"""From the journal's blocks to Arrow tables, a batch at a time.

The one decoder: sealing, live SQL over what is not yet sealed, and proofs by decoding again all come through here, and
give the same rows wherever a batch is cut.
"""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from mdcapture.lake.journal import MISSING, IncidentBlock, MessageBlock, SignalBlock
from mdcapture.lake.layout import contract_folder, partition_of
from mdcapture.lake.plausible import implausible
from mdcapture.lake.quotes import fill_forward
from mdcapture.lake.schema import TABLES, Bar, Incident, IncidentKind, SignalRow
from mdcapture.wire.decode import decode, is_utf8, record_text
from mdcapture.wire.timestamps import parse_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from mdcapture.lake.journal import Block, Damage
    from mdcapture.lake.manifest import Contract, Manifest
    from mdcapture.wire.decode import Batch, Entries, Reject
    from mdcapture.wire.messages import DepthEntry, Quote, Trade

    Int32s = npt.NDArray[np.int32]
    Int64s = npt.NDArray[np.int64]

__all__ = ["CONTRACT", "Decoder", "arrow_schema", "empty_table", "parse_times"]

CONTRACT: Final = "contract_id"
_NO_CONTRACT: Final = -1
_BATCH_MESSAGES: Final = 8_192
_BATCH_BYTES: Final = 32 * 1024 * 1024
_TIMESTAMP: Final = pa.timestamp("ns", "UTC")


def arrow_schema(table: str, *, contract: bool = False) -> pa.Schema:
    """The Arrow schema of a table's files; with `contract`, led by the column that becomes the partition."""
    fields = [pa.field(column.name, pa.type_for_alias(column.type)) for column in TABLES[table].columns]
    if contract:
        fields.insert(0, pa.field(CONTRACT, pa.dictionary(pa.int32(), pa.string())))
    return pa.schema(fields)


def empty_table(table: str, *, contract: bool = False) -> pa.Table:
    """No rows of a table; pyarrow's own way to that imports pandas where it is installed, a quarter of a second."""
    return pa.Table.from_batches([], arrow_schema(table, contract=contract))


def parse_times(texts: Sequence[str | None]) -> pa.Int64Array:
    """A column of the gateway's times to nanoseconds; null where there is none, or none that can be read."""
    column = pa.array(texts, pa.string())
    try:
        return column.cast(_TIMESTAMP).cast(pa.int64())
    except pa.ArrowInvalid:
        parsed = {text: _parse_time(text) for text in set(texts) if text is not None}
        return pa.array([None if text is None else parsed[text] for text in texts], pa.int64())


def _parse_time(text: str) -> int | None:
    try:
        return parse_ns(text)
    except ValueError:
        return None


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A batch makes a million objects without a cycle: let the collector not look at them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Decoder:
    """Journal blocks in their order to Arrow record batches.

    Args:
        contracts: What is known of the contracts, for their tick sizes.
        quote_state: What the quotes stood at before the first block.

    Attributes:
        quote_state: What the quotes stand at after the last block.
        counts: Rows by table.
        implausible: Rows that are well-formed but hard to believe, by table and kind.
        incidents: Incidents by kind.
        next_seq: The number after the last message.
        last_recv_ns: When the last message was received.
        damage: What of the journal can't be read since the last message or incident: until when is known by the next.
    """

    def __init__(self, contracts: Mapping[str, Contract], quote_state: Mapping[str, Quote]) -> None:
        self.quote_state = dict(quote_state)
        self.counts: Counter[str] = Counter()
        self.implausible: Counter[str] = Counter()
        self.incidents: Counter[str] = Counter()
        self.next_seq = 0
        self.damage: list[Damage] = []
        self._contracts = contracts
        self._ids: list[str] = []
        self._codes: dict[str | None, int] = {}
        self._batches: dict[str, list[pa.RecordBatch]] = {table: [] for table in TABLES}
        self._resets: list[tuple[int, str | None]] = []
        self._waiting: list[MessageBlock] = []
        self._waiting_messages = 0
        self._waiting_bytes = 0
        self.last_recv_ns = 0
        self._last_block = -1

    @classmethod
    def after(cls, manifest: Manifest) -> Decoder:
        """A decoder of what follows a session's last sealed segment."""
        decoder = cls({contract.contract_id: contract for contract in manifest.contracts}, manifest.quote_state)
        decoder.next_seq = manifest.next_seq
        decoder.last_recv_ns = manifest.end_ns or manifest.created_ns
        decoder.damage = list(manifest.damage)
        return decoder

    def take(self, blocks: Iterable[Block | Damage]) -> None:
        """Decode the blocks that follow."""
        for block in blocks:
            if isinstance(block, MessageBlock):
                if block.first_seq != self._last_block:  # else it was written twice: its writer was interrupted at it
                    self._tell_missing(block, block.recv_ns[0])
                    self._messages(block)
            elif isinstance(block, IncidentBlock):
                self._tell_missing(block, block.recv_ns)
                self._incident(block)
            elif isinstance(block, SignalBlock):
                self._signals(block)
            else:
                self.damage.append(block)
        self._decode()
        self._reset()

    def end(self) -> None:
        """Nothing follows: what can't be read at the end of the journal has no end that is known."""
        self._damaged_until(None)
        self._reset()

    def tables(self) -> dict[str, pa.Table]:
        """The rows so far, each table led by the contract, in the order (recv_ns, seq, pos)."""
        tables = {}
        for name, batches in self._batches.items():
            table = pa.Table.from_batches(batches, arrow_schema(name, contract=True)).unify_dictionaries()
            recv_ns = table["recv_ns"].to_numpy()
            if len(recv_ns) and np.any(recv_ns[1:] < recv_ns[:-1]):  # the clock stepped back
                table = table.take(np.argsort(recv_ns, kind="stable"))
            tables[name] = table
        return tables

    def drain(self) -> dict[str, pa.Table]:
        """The rows so far, which are then the caller's alone: what follows has none of them."""
        tables = self.tables()
        self._batches = {table: [] for table in TABLES}
        return tables

    def _signals(self, block: SignalBlock) -> None:
        if block.rows:
            values = dict(zip(SignalRow._fields, zip(*block.rows, strict=True), strict=True))
            self._add("signals", self._codes_of(values.pop("contract_id")), **values)

    def _messages(self, block: MessageBlock) -> None:
        self._waiting.append(block)
        self._waiting_messages += len(block.records)
        self._waiting_bytes += sum(map(len, block.records))
        self._last_block = block.first_seq
        self.next_seq = block.first_seq + len(block.records)
        self.last_recv_ns = block.recv_ns[-1]
        if self._waiting_messages >= _BATCH_MESSAGES or self._waiting_bytes >= _BATCH_BYTES:
            self._decode()

    def _tell_missing(self, following: MessageBlock | IncidentBlock, to_ns: int) -> None:
        """Tell of what is missing before a block; the numbers alone say so where a file has lost whole blocks."""
        if following.first_seq > self.next_seq and not self.damage:
            self.damage.append(MISSING)
        self._damaged_until(to_ns)

    def _damaged_until(self, to_ns: int | None) -> None:
        """What is lost lies between the last message before and the first that follows, if one does."""
        damage, self.damage = self.damage, []
        for one in damage:
            from_ns = self.last_recv_ns
            incident = Incident(IncidentKind.JOURNAL_DAMAGED, None, None, from_ns, to_ns, one.detail)
            self._incident(IncidentBlock(self.next_seq, from_ns if to_ns is None else to_ns, incident))

    def _reset(self) -> None:
        """Forget the quotes that were begun anew, and that none has followed yet."""
        for _, contract_id in self._resets:
            self.quote_state = {one: quote for one, quote in self.quote_state.items() if contract_id not in (None, one)}
        self._resets = []

    def _incident(self, block: IncidentBlock) -> None:
        incident = block.incident
        self.incidents[incident.kind] += 1
        if incident.resets_quotes:
            self._resets.append((block.first_seq, incident.contract_id))
        self._add(
            "incidents",
            self._codes_of([incident.contract_id]),
            seq=[block.first_seq],
            recv_ns=[block.recv_ns],
            kind=[incident.kind],
            stream=[incident.stream],
            from_ns=[incident.from_ns],
            to_ns=[incident.to_ns],
            detail=[incident.detail],
        )
        self._backfill(block)

    def _backfill(self, block: IncidentBlock) -> None:
        bars = block.incident.bars
        if bars:
            count = len(bars)
            self._add(
                "backfill",
                self._codes_of([block.incident.contract_id] * count),
                seq=[block.first_seq] * count,
                recv_ns=[block.recv_ns] * count,
                pos=range(count),
                **dict(zip(Bar._fields, zip(*bars, strict=True), strict=True)),
            )

    def _decode(self) -> None:
        if self._waiting:
            blocks, self._waiting = self._waiting, []
            self._waiting_messages = self._waiting_bytes = 0
            with _collector_paused():
                self._decode_blocks(blocks)

    def _decode_blocks(self, blocks: list[MessageBlock]) -> None:
        records = [record for block in blocks for record in block.records]
        sizes = [len(block.records) for block in blocks]
        recv_ns = np.concatenate([np.frombuffer(block.recv_ns, np.int64) for block in blocks])
        seq = np.concatenate([np.arange(b.first_seq, b.first_seq + n) for b, n in zip(blocks, sizes, strict=True)])
        batch = decode(records)
        contract = self._contracts_of(batch, len(records))
        self._quotes(batch.quotes, contract, seq, recv_ns)
        self._trades(batch.trades, contract, seq, recv_ns)
        self._depth(batch.depth, contract, seq, recv_ns)
        self._rejects(batch.rejects, seq, recv_ns)
        self._add(
            "messages",
            contract,
            seq=seq,
            recv_ns=recv_ns,
            connection=np.repeat(np.array([block.connection for block in blocks], np.int32), sizes),
            payload=_texts(records),
        )

    def _quotes(self, entries: Entries[Quote], contract: Int32s, seq: Int64s, recv_ns: Int64s) -> None:
        message, pos, values, codes = _rows(entries, contract)
        resets = [(at, None if contract is None else self._code(contract)) for at, contract in self._resets]
        before = {self._code(contract): quote for contract, quote in self.quote_state.items()}
        state, changed, after = fill_forward(values, codes, seq[message], before, resets)
        self.quote_state = {id_: after[code] for code, id_ in enumerate(self._ids) if code in after}
        self._resets = []
        times = {name: parse_times(_attribute(values, name)) for name in ("timestamp", "last_updated")}
        self._add(
            "quotes",
            codes,
            seq=seq[message],
            recv_ns=recv_ns[message],
            pos=pos,
            exch_ns=times["timestamp"],
            updated_ns=times["last_updated"],
            changed=changed,
            **state,
        )

    def _trades(self, entries: Entries[Trade], contract: Int32s, seq: Int64s, recv_ns: Int64s) -> None:
        message, pos, values, codes = _rows(entries, contract)
        self._add(
            "trades",
            codes,
            seq=seq[message],
            recv_ns=recv_ns[message],
            pos=pos,
            exch_ns=parse_times(_attribute(values, "timestamp")),
            price=_attribute(values, "price"),
            volume=_attribute(values, "volume"),
            side=_attribute(values, "type"),
        )

    def _depth(self, entries: Entries[DepthEntry], contract: Int32s, seq: Int64s, recv_ns: Int64s) -> None:
        message, pos, values, codes = _rows(entries, contract)
        self._add(
            "depth",
            codes,
            seq=seq[message],
            recv_ns=recv_ns[message],
            pos=pos,
            exch_ns=parse_times(_attribute(values, "timestamp")),
            dom_type=_attribute(values, "type"),
            price=_attribute(values, "price"),
            volume=_attribute(values, "volume"),
            current_volume=_attribute(values, "current_volume"),
        )

    def _rejects(self, rejects: list[Reject], seq: Int64s, recv_ns: Int64s) -> None:
        if rejects:
            message = np.array([reject.message for reject in rejects])
            self._add(
                "rejects",
                self._codes_of([reject.contract_id for reject in rejects]),
                seq=seq[message],
                recv_ns=recv_ns[message],
                pos=[reject.pos for reject in rejects],
                table=[reject.table for reject in rejects],
                reason=[reject.reason.value for reject in rejects],
                payload=[reject.payload for reject in rejects],
            )

    def _add(self, table: str, codes: Int32s, /, **columns: object) -> None:
        if len(codes):
            indices = pa.array(codes, mask=codes == _NO_CONTRACT)
            contract = pa.DictionaryArray.from_arrays(indices, pa.array(self._ids, pa.string()))
            schema = arrow_schema(table, contract=True)
            arrays = [contract, *(_array(columns[field.name], field.type) for field in list(schema)[1:])]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            self._batches[table].append(batch)
            self.counts[table] += len(codes)
            self.implausible.update(implausible(table, batch, self._contracts))

    def _contracts_of(self, batch: Batch, messages: int) -> Int32s:
        """The contract of each message; of none where it can't be read."""
        codes = np.full(messages, _NO_CONTRACT, np.int32)
        for entries in (batch.quotes, batch.trades, batch.depth):
            codes[entries.message] = self._codes_of(entries.contract_id)
        return codes

    def _codes_of(self, contract_ids: Sequence[str | None]) -> Int32s:
        for each in dict.fromkeys(contract_ids):
            self._code(each)
        return np.fromiter(map(self._codes.__getitem__, contract_ids), np.int32, len(contract_ids))

    def _code(self, contract_id: str | None) -> int:
        code = self._codes.get(contract_id)
        if code is None:
            usable = partition_of(contract_folder(contract_id))
            if usable is None:
                code = _NO_CONTRACT
            else:
                code = len(self._ids)
                self._ids.append(usable)
            self._codes[contract_id] = code
        return code


def _rows(entries: Entries[Any], contract: Int32s) -> tuple[Int64s, Int32s, list[Any], Int32s]:
    """The message, the position, the value and the contract of each entry that has a value."""
    count = np.array(entries.count, np.int64)
    message = np.repeat(np.array(entries.message, np.int64), count)
    pos = (np.arange(len(message)) - np.repeat(np.cumsum(count) - count, count)).astype(np.int32)
    values = [value for value in entries.values if value is not None]
    if len(values) < len(message):
        nulls = [at for at, value in enumerate(entries.values) if value is None]
        message, pos = np.delete(message, nulls), np.delete(pos, nulls)
    return message, pos, values, contract[message]


def _attribute(values: list[Any], name: str) -> list[Any]:
    return list(map(attrgetter(name), values))


def _array(values: object, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _texts(records: list[bytes]) -> pa.StringArray:
    """The records as a column of text, in one piece where each is UTF-8."""
    joined = b"".join(records)
    if not joined.isascii() and not is_utf8(b"\n".join(records)):  # halves of a character can be one when they meet
        return pa.array(map(record_text, records), pa.string())
    offsets = np.zeros(len(records) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, records), np.int32, len(records)), out=offsets[1:])
    return pa.StringArray.from_buffers(len(records), pa.py_buffer(offsets), pa.py_buffer(joined))
