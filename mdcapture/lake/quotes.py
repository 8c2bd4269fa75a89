"""Quotes are deltas: from what each message changed to the state after it."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mdcapture.lake.schema import QUOTE_STATE
from mdcapture.wire.messages import Quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

__all__ = ["fill_forward"]


def fill_forward(
    quotes: list[Quote],
    contract: npt.NDArray[np.int32],
    seq: Ints,
    before: Mapping[int, Quote],
    resets: Sequence[tuple[int, int | None]],
) -> tuple[dict[str, pa.Array], npt.NDArray[np.int16], dict[int, Quote]]:
    """Carry each field forward within its contract, from what stood before, and not across a reset.

    Args:
        quotes: What each message changed, in the order of arrival.
        contract: The contract of each, as a number; negative where it is not known.
        seq: The message of each.
        before: The state before the first, by contract.
        resets: The first message after each new subscription, or after some that can be missing, and its contract
            (None for all): nothing is known then.

    Returns:
        The columns of the state after each message, the mask of what it changed, and the state after the last, by
        contract.
    """
    known = sorted(before)
    rows = [before[code] for code in known] + quotes
    codes = np.concatenate([np.array(known, np.int32), contract])
    seqs = np.concatenate([np.full(len(known), -1), seq])
    order = np.argsort(codes, kind="stable")
    start = _starts(codes[order], seqs[order], resets)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    state: dict[str, pa.Array] = {}
    changed = np.zeros(len(rows), np.int16)
    for bit, column in enumerate(QUOTE_STATE):
        given = pa.array(map(attrgetter(column.name), rows), pa.type_for_alias(column.type), size=len(rows))
        valid = given.is_valid().to_numpy(zero_copy_only=False)
        changed |= valid.astype(np.int16) << bit
        last = np.maximum.accumulate(np.where(valid[order], np.arange(len(rows)), -1))
        from_row = np.where(last >= start, order[last], -1)[back]
        state[column.name] = given.take(pa.array(from_row, mask=from_row < 0))
    after = _last_states(state, codes, resets, seqs)
    return {name: values[len(known) :] for name, values in state.items()}, changed[len(known) :], after


def _starts(codes: npt.NDArray[np.int32], seqs: Ints, resets: Sequence[tuple[int, int | None]]) -> Ints:
    """For each row (by contract, then in order) the first row whose values still hold for it."""
    begins = np.flatnonzero(np.diff(codes, prepend=np.iinfo(codes.dtype).min))
    ends = np.append(begins, len(codes))[1:]
    start = np.repeat(begins, ends - begins)
    for at, code in resets:
        for begin, end in zip(begins, ends, strict=True):
            if code is None or codes[begin] == code:
                first = begin + np.searchsorted(seqs[begin:end], at)
                start[first:end] = np.maximum(start[first:end], first)
    return np.where(codes < 0, np.arange(len(codes)), start)  # quotes of no known contract have no common past


def _last_states(
    state: Mapping[str, pa.Array], codes: npt.NDArray[np.int32], resets: Sequence[tuple[int, int | None]], seqs: Ints
) -> dict[int, Quote]:
    last: dict[int, int] = dict(zip(codes.tolist(), range(len(codes)), strict=True))
    after: dict[int, Quote] = {}
    for code, row in last.items():
        if not any(at > seqs[row] for at, of in resets if of is None or of == code):
            values: dict[str, Any] = {name: column[row].as_py() for name, column in state.items()}
            after[code] = Quote(**values)
    return after
