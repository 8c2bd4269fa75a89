"""The gateway over REST: login, contracts, bars.

Every question is a POST, every answer a JSON object with `success`, `errorCode` and `errorMessage`. An answer becomes a
typed value or an error of the tree; the API key and the tokens stay in here, and in no text that leaves.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from random import random as random_fraction
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

import aiohttp
import msgspec

from mdcapture.errors import ConfigError, GatewayError, ProtocolError, RefusedError, UnreachableError
from mdcapture.gateway.refusals import network_error, quoted, retry_after_s, status_error
from mdcapture.gateway.retry import Backoff, RateLimit, RetryPolicy, Verdict, verdict
from mdcapture.lake.manifest import Contract
from mdcapture.lake.schema import Bar
from mdcapture.wire.timestamps import format_ns, parse_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

__all__ = ["Bar", "BarUnit", "Credentials", "Listing", "RestClient"]

_LOGIN: Final = "/api/Auth/loginKey"
_VALIDATE: Final = "/api/Auth/validate"
_SEARCH: Final = "/api/Contract/search"
_SEARCH_BY_ID: Final = "/api/Contract/searchById"
_AVAILABLE: Final = "/api/Contract/available"
_BARS: Final = "/api/History/retrieveBars"

_TOKEN_LIFE_S: Final = 86_400.0
_RENEWED_AFTER: Final = 0.9  # of a token's life
_MAX_BARS: Final = 20_000
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_OK: Final = 200

_REFUSALS: Final[Mapping[str, Mapping[int, str]]] = {
    _LOGIN: {
        1: "it does not know this user name: check MDCAPTURE_USERNAME",
        3: "the user name or the API key is wrong: check both; a new key is made in the platform's settings",
        7: "agreements are not signed: sign in to the platform with a browser and sign them",
        9: "the account has no API subscription: take one out in the platform's settings",
        10: "logins by API key are switched off for this account: switch them on in the platform's settings",
    },
    _VALIDATE: {1: "the session is invalid", 2: "there is no such session", 3: "the token has expired"},
    _SEARCH_BY_ID: {1: "there is no such contract"},
    _BARS: {1: "there is no such contract"},
}
"""What a gateway's error codes mean, and what to do; a code that is not here may pass."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and API key; the key does not show.

    Raises:
        ConfigError: One of them is empty.
    """

    username: str
    api_key: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.username or not self.api_key:
            raise ConfigError(
                "a user name and an API key are needed: set MDCAPTURE_USERNAME and MDCAPTURE_API_KEY, or name a file"
            )


class Listing(NamedTuple):
    """A contract as the gateway lists it; of each product one or two contracts are active at a time."""

    contract: Contract
    active: bool


class BarUnit(IntEnum):
    """The gateway's units of time."""

    SECOND = 1
    MINUTE = 2
    HOUR = 3
    DAY = 4
    WEEK = 5
    MONTH = 6


class _Answer(msgspec.Struct, rename="camel"):
    success: bool = True
    error_code: int | None = None
    error_message: str | None = None


class _LoginAnswer(_Answer):
    token: str | None = None


class _ValidateAnswer(_Answer):
    new_token: str | None = None


class _WireContract(msgspec.Struct, rename="camel"):
    id: str
    name: str | None = None
    description: str | None = None
    tick_size: float | None = None
    tick_value: float | None = None
    active_contract: bool | None = None
    symbol_id: str | None = None


class _ContractsAnswer(_Answer):
    contracts: list[_WireContract] | None = None
    contract: _WireContract | None = None

    def listings(self) -> list[Listing]:
        wire = [*(self.contracts or ()), *((self.contract,) if self.contract is not None else ())]
        return [
            Listing(
                Contract(
                    contract_id=each.id,
                    name=each.name or "",
                    description=each.description or "",
                    tick_size=each.tick_size,
                    tick_value=each.tick_value,
                    symbol_id=each.symbol_id or "",
                    source="gateway",
                ),
                bool(each.active_contract),
            )
            for each in wire
        ]


class _WireBar(msgspec.Struct):
    t: str
    o: float
    h: float
    l: float  # noqa: E741  # the gateway's name
    c: float
    v: float


class _BarsAnswer(_Answer):
    bars: list[_WireBar] | None = None


class _Problem(msgspec.Struct, rename="camel"):
    title: str | None = None
    error_message: str | None = None


class _Claims(msgspec.Struct):
    exp: float
    iat: float


AnswerT = TypeVar("AnswerT", bound=_Answer)


class RestClient:
    """A user's conversation with one gateway; an asynchronous context manager.

    Args:
        api: The API's address.
        credentials: Who asks.
        session: An HTTP session to use, which stays open; by default one of its own.
        policy: When to ask again.
        timeout_s: For one answer.
        live: Whether to ask for contracts and bars of live or of simulated data.
        clock: Nanoseconds since the epoch, UTC, for dates in `Retry-After`.
        random: Fractions from 0 to 1 for the jitter of pauses.
    """

    def __init__(
        self,
        api: str,
        credentials: Credentials,
        *,
        session: aiohttp.ClientSession | None = None,
        policy: RetryPolicy | None = None,
        timeout_s: float = 15.0,
        live: bool = False,
        clock: Callable[[], int] = time.time_ns,
        random: Callable[[], float] = random_fraction,
    ) -> None:
        self._api = api.rstrip("/")
        self._credentials = credentials
        self._session = session
        self._owns_session = session is None
        self._policy = policy or RetryPolicy(attempts=2)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._live = live
        self._clock = clock
        self._random = random
        self._bars_limit = RateLimit(50, 30.0)
        self._limit = RateLimit(200, 60.0)
        self._login_lock = asyncio.Lock()
        self._token: str | None = None
        self._tokens: deque[str] = deque(maxlen=8)  # none of them may show, the old ones included
        self._renew_s = 0.0
        self._expires_s = 0.0

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns_session and self._session is not None:
            await self._session.close()
            self._session = None

    async def token(self, refused: str | None = None) -> str:
        """Give a token that is fresh; callers at the same time share one login.

        Args:
            refused: A token that the gateway no longer accepts: it is not given again.

        Raises:
            GatewayError: No login.
        """
        async with self._login_lock:
            if self._token is None or self._token == refused:
                return await self._login()
            if _now_s() < self._renew_s:
                return self._token
            return await self._renew(self._token)

    async def search(self, text: str) -> list[Listing]:
        """Find contracts whose name or description contains a text; the gateway lists at most 20.

        Raises:
            GatewayError: No answer.
        """
        return (await self._ask(_SEARCH, {"searchText": text, "live": self._live}, _ContractsAnswer)).listings()

    async def available(self) -> list[Listing]:
        """List all contracts.

        Raises:
            GatewayError: No answer.
        """
        return (await self._ask(_AVAILABLE, {"live": self._live}, _ContractsAnswer)).listings()

    async def contract(self, contract_id: str) -> Listing:
        """Look up one contract.

        Raises:
            RefusedError: There is no such contract.
            GatewayError: No answer.
        """
        answer = await self._ask(_SEARCH_BY_ID, {"contractId": contract_id}, _ContractsAnswer)
        for listing in answer.listings():
            if listing.contract.contract_id == contract_id:
                return listing
        raise RefusedError(f"the gateway knows no contract {quoted(contract_id)}: see `mdcapture contracts`")

    async def bars(
        self,
        contract_id: str,
        start_ns: int,
        end_ns: int,
        *,
        unit: BarUnit = BarUnit.SECOND,
        unit_number: int = 1,
        partial: bool = False,
        page: int = _MAX_BARS,
    ) -> list[Bar]:
        """Fetch bars, page by page from the newest on, within the gateway's rate limits.

        Args:
            contract_id: Of which contract.
            start_ns: The first time, nanoseconds since the epoch, UTC.
            end_ns: The last time.
            unit: A bar's unit of time,
            unit_number: and how many of it.
            partial: Whether the bar that is not yet complete is wanted.
            page: How many bars to ask for at once; the gateway gives at most 20,000, or fewer.

        Returns:
            The bars that start in [`start_ns`, `end_ns`], oldest first; a time without a trade has none.

        Raises:
            GatewayError: Refused, or no answer.
        """
        found: dict[int, Bar] = {}
        until_ns = end_ns
        while True:
            question = {
                "contractId": contract_id,
                "live": self._live,
                "startTime": format_ns(start_ns),
                "endTime": format_ns(until_ns),
                "unit": unit.value,
                "unitNumber": unit_number,
                "limit": page,
                "includePartialBar": partial,
            }
            answer = await self._ask(_BARS, question, _BarsAnswer)
            new = {bar.start_ns: bar for bar in map(_bar, answer.bars or ()) if start_ns <= bar.start_ns <= until_ns}
            if new.keys() <= found.keys():
                return [found[key] for key in sorted(found)]
            found |= new
            until_ns = min(new)

    # Tokens.

    async def _login(self) -> str:
        self._token = None
        question = {"userName": self._credentials.username, "apiKey": self._credentials.api_key}
        answer = await self._post(_LOGIN, question, _LoginAnswer)
        return self._keep(answer.token, _LOGIN)

    async def _renew(self, token: str) -> str:
        try:
            return self._keep((await self._post(_VALIDATE, {}, _ValidateAnswer, token)).new_token, _VALIDATE)
        except RefusedError:
            return await self._login()
        except (UnreachableError, ProtocolError):
            if _now_s() >= self._expires_s:
                raise
            return token

    def _keep(self, token: str | None, path: str) -> str:
        if not token:
            raise ProtocolError(f"{self._api}{path} gave no token: is this the gateway's address? Check --gateway")
        life_s = _life_s(token)
        self._token = token
        self._tokens.append(token)
        self._renew_s = _now_s() + life_s * _RENEWED_AFTER
        self._expires_s = _now_s() + life_s
        return token

    # Questions.

    async def _ask(self, path: str, question: Mapping[str, object], kind: type[AnswerT]) -> AnswerT:
        """Ask as a user who is logged in, and again where that may help."""
        backoff = Backoff(self._policy, self._random)
        refreshed = False
        token: str | None = None
        refused: str | None = None
        while True:
            try:
                token = await self.token(refused)
                return await self._post(path, question, kind, token)
            except GatewayError as error:
                judged = verdict(error, refreshed=refreshed)
                if judged is Verdict.GIVE_UP:
                    raise
                if judged is Verdict.REFRESH:
                    refreshed, refused = True, token
                    continue
                pause_s = backoff.pause_s(error)
                if backoff.exhausted:
                    raise
                await asyncio.sleep(pause_s)

    async def _post(
        self, path: str, question: Mapping[str, object], kind: type[AnswerT], token: str | None = None
    ) -> AnswerT:
        """Ask once."""
        limit = self._bars_limit if path == _BARS else self._limit
        await asyncio.sleep(limit.reserve(_now_s()))
        status, header, content = await self._exchange(path, msgspec.json.encode(question), token)
        secrets = (self._credentials.api_key, *self._tokens)
        if status != _OK:
            pause_s = retry_after_s(header, self._clock())
            raise status_error(status, self._api + path, quoted(_problem(content), secrets), pause_s)
        try:
            answer = msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ProtocolError(
                f"{self._api}{path} answers with something else than the gateway's JSON: check --gateway"
            ) from None
        if not answer.success:
            raise _refusal(path, answer, secrets)
        return answer

    async def _exchange(self, path: str, body: bytes, token: str | None) -> tuple[int, str | None, bytes]:
        """Carry one question there and its answer back: status, `Retry-After`, content."""
        if self._session is None:
            raise RuntimeError("a RestClient works inside of `async with`")
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        content = bytearray()
        try:
            # A redirect could carry the key to another host: it is an answer like any other, and no good one.
            async with self._session.post(
                self._api + path, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > _MAX_ANSWER_BYTES:
                        raise ProtocolError(f"{self._api}{path} answers with more than {_MAX_ANSWER_BYTES:,} bytes")
                return response.status, response.headers.get("Retry-After"), bytes(content)
        # The causes are left out: some of aiohttp's errors hold the request's headers, and so the token.
        except aiohttp.ClientResponseError:
            raise ProtocolError(f"{self._api}{path} answers with something else than HTTP: check --gateway") from None
        except (aiohttp.ClientError, OSError) as error:
            cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
            raise network_error(cause, self._api) from None


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _life_s(token: str) -> float:
    """How long a token lives from its issue, in seconds, whatever this machine's clock says."""
    try:
        encoded = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), type=_Claims)
    except (IndexError, binascii.Error, msgspec.DecodeError, ValueError):
        return _TOKEN_LIFE_S
    life_s = claims.exp - claims.iat
    return life_s if life_s > 0 else _TOKEN_LIFE_S


def _bar(wire: _WireBar) -> Bar:
    try:
        return Bar(parse_ns(wire.t), wire.o, wire.h, wire.l, wire.c, int(wire.v))
    except ValueError as error:
        raise ProtocolError(f"a bar without a time that can be read: {quoted(wire.t)!r}") from error


def _problem(content: bytes) -> str:
    """What an answer that is no success says about it, if it says it in JSON."""
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return problem.error_message or problem.title or ""


def _refusal(path: str, answer: _Answer, secrets: Iterable[str]) -> GatewayError:
    said = f": {quoted(answer.error_message, secrets)}" if answer.error_message else ""
    meaning = _REFUSALS.get(path, {}).get(answer.error_code or 0)
    if meaning is None:
        return UnreachableError(f"the gateway answers {path} with errorCode {answer.error_code}{said}: try again later")
    return RefusedError(f"the gateway refuses {path} (errorCode {answer.error_code}{said}): {meaning}")
