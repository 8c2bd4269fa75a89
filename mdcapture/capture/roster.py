"""The contracts that a capture is about: what the configuration calls them, and what the gateway means by it today.

At the start each has to be known. At a trading day's end each is looked up anew, and what can't be found then goes on
as it was: an id has expired, a root has no active contract for a moment, or two, or the gateway is away. The others
must not end because of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mdcapture.errors import MdcaptureError, UnreachableError
from mdcapture.lake.schema import Incident, IncidentKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from mdcapture.lake.manifest import Contract

__all__ = ["Roster"]

_log = logging.getLogger(__name__)


class Roster:
    """What each text of a configuration means.

    Args:
        texts: What the configuration calls its contracts.
        look_up: Gives the contract that a text means today.

    Attributes:
        unresolved: The texts that could not be looked up the last time, and why; they mean what they meant before.
    """

    def __init__(self, texts: Iterable[str], look_up: Callable[[str], Awaitable[Contract]]) -> None:
        self.unresolved: dict[str, MdcaptureError] = {}
        self._texts = list(dict.fromkeys(texts))
        self._look_up = look_up
        self._meant: dict[str, Contract] = {}

    @property
    def contracts(self) -> list[Contract]:
        """The contracts, each once; none before all were found."""
        return list({contract.contract_id: contract for contract in self._meant.values()}.values())

    async def find_all(self) -> None:
        """Look all up for the first time.

        Raises:
            MdcaptureError: One of them can't be found.
        """
        self._meant = {text: await self._look_up(text) for text in self._texts}

    async def begin_day(self) -> None:
        """Look all up again."""
        await self._renew(self._texts)

    async def ask_again(self) -> bool:
        """Look up what is unresolved; whether something else is meant by it now."""
        before = self.contracts
        await self._renew(list(self.unresolved))
        return {each.contract_id for each in self.contracts} != {each.contract_id for each in before}

    def incidents(self, now_ns: int) -> list[Incident]:
        """What to tell a session that begins with these contracts."""
        return [
            Incident(
                IncidentKind.UNRESOLVED,
                None,
                self._meant[text].contract_id,
                now_ns,
                now_ns,
                f"{text!r} can't be looked up, goes on as it was, and is asked for again: {error}",
            )
            for text, error in self.unresolved.items()
        ]

    async def _renew(self, texts: Sequence[str]) -> None:
        for place, text in enumerate(texts):
            try:
                self._meant[text] = await self._look_up(text)
            except UnreachableError as error:  # who does not answer for one does not for the others
                self.unresolved |= dict.fromkeys(texts[place:], error)
                return
            except MdcaptureError as error:  # theirs is not the others'
                self.unresolved[text] = error
            else:
                if self.unresolved.pop(text, None) is not None:
                    _log.info("%r can be looked up again: %s", text, self._meant[text].contract_id)
