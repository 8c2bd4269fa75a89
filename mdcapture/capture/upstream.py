"""Where a capture's contracts, records and bars come from: a connection of its own, or one that a program lends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from mdcapture.capture.backfill import BarSource
from mdcapture.errors import ConfigError
from mdcapture.gateway.attached import AttachedHub, check_connection
from mdcapture.gateway.connection import Timing
from mdcapture.gateway.contracts import resolve
from mdcapture.gateway.endpoints import endpoints
from mdcapture.gateway.hub import Hub, HubEvents
from mdcapture.gateway.instruments import parse_id
from mdcapture.gateway.rest import RestClient
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

    from mdcapture.config import Config
    from mdcapture.gateway.attached import HubConnection
    from mdcapture.gateway.hub import Subscription
    from mdcapture.gateway.rest import Credentials

__all__ = ["MarketHub", "Upstream", "borrowed_connection", "own_connections", "retry_policy"]

_LONGEST_PING_S: Final = 15.0


class MarketHub(Protocol):
    """The hub, kept up: see `mdcapture.gateway.hub.Hub`."""

    @property
    def connected(self) -> bool:
        """Whether a connection stands."""

    async def run(self) -> None:
        """Hand over what comes until `stop`."""

    def stop(self) -> None:
        """Let `run` return."""

    def reconnect(self, reason: str) -> None:
        """Do what can be done about a connection that does not deliver."""

    def subscribe(self, subscriptions: Iterable[Subscription], *, again: bool = False) -> None:
        """Want these, too."""

    def unsubscribe(self, subscriptions: Iterable[Subscription]) -> None:
        """Want these no longer."""

    def resubscribe(self, subscription: Subscription, reason: str = "") -> None:
        """Make a subscription anew."""


class Upstream(NamedTuple):
    """Where a capture's data comes from.

    Attributes:
        source: What the manifest says of it.
        contract: Gives the contract that a text of the configuration means today.
        hub: Makes the hub; it tells its listener in the event loop.
        bars: Where bars come from; None where nobody can be asked.
    """

    source: str
    contract: Callable[[str], Awaitable[Contract]]
    hub: Callable[[HubEvents], MarketHub]
    bars: BarSource | None


def retry_policy(config: Config) -> RetryPolicy:
    """How long to wait before trying again, as the configuration says."""
    return RetryPolicy(
        first_s=config.reconnect_first_s,
        max_s=config.reconnect_max_s,
        attempts=config.reconnect_attempts,
        logout_first_s=config.logout_first_s,
        logout_max_s=config.logout_max_s,
    )


def own_connections(
    config: Config, credentials: Credentials, clock: Callable[[], int]
) -> AbstractAsyncContextManager[Upstream]:
    """The gateway by connections of our own.

    Raises:
        UsageError: The configuration's addresses are none.
    """
    where = endpoints(config.gateway, config.hub)
    timing = Timing(
        connect_s=config.answer_s,
        ping_s=min(_LONGEST_PING_S, config.silence_s / 2),
        silence_s=config.silence_s,
        completion_s=config.answer_s,
    )

    @asynccontextmanager
    async def connect() -> AsyncIterator[Upstream]:
        async with RestClient(where.api, credentials) as rest:

            def hub(events: HubEvents) -> Hub:
                policy = retry_policy(config)
                return Hub(where.hub, rest.token, events, policy=policy, timing=timing, clock=clock)

            yield Upstream("gateway", partial(resolve, rest), hub, rest.bars)

    return connect()


def borrowed_connection(
    config: Config, connection: HubConnection, clock: Callable[[], int]
) -> AbstractAsyncContextManager[Upstream]:
    """A hub connection that another program holds: nobody logs in, so nobody can be asked for contracts and bars.

    Raises:
        UsageError: It is no connection of `signalrcore`.
        ConfigError: A contract is not named by its full id.
    """
    check_connection(connection)
    for contract_id in config.contracts:
        if not contract_id.startswith("CON."):
            raise ConfigError(
                f"{contract_id} can't be looked up over another's connection: name contracts by their ids, as "
                "CON.F.US.MNQ.Z26 (`mdcapture contracts` lists them)"
            )
    policy = retry_policy(config)

    async def contract(contract_id: str) -> Contract:
        return _known(contract_id)

    def hub(events: HubEvents) -> AttachedHub:
        return AttachedHub(connection, events, policy=policy, answer_s=config.answer_s, clock=clock)

    return nullcontext(Upstream("gateway, over a connection of signalrcore", contract, hub, None))


def _known(contract_id: str) -> Contract:
    """What is known of a contract without asking: the ticks of the usual futures."""
    listing = parse_id(contract_id)
    if listing is None:
        return Contract(contract_id=contract_id)
    return msgspec.structs.replace(listing.contract, source="known")
