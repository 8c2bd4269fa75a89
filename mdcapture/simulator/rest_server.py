"""The local gateway's REST door: login, contracts, bars.

Every answer is a 200 with `success` and `errorCode`, as the gateway's are; 401 without a living token, 429 past the
documented limits (when they are switched on), and whatever a fault demands.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec
from aiohttp import web

from mdcapture.simulator.history import History, Unit
from mdcapture.wire.timestamps import parse_ns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mdcapture.lake.manifest import Contract

__all__ = ["Accounts", "Quota", "RestServer", "bearer"]

_INVALID_CREDENTIALS: Final = 3
_EXPIRED_TOKEN: Final = 3
_CONTRACT_NOT_FOUND: Final = 1
_SEARCH_LIMIT: Final = 20
_BARS_LIMIT: Final = 20_000


class _LoginKey(msgspec.Struct, rename="camel"):
    user_name: str
    api_key: str


class _Search(msgspec.Struct, rename="camel"):
    search_text: str = ""
    live: bool = False


class _SearchById(msgspec.Struct, rename="camel"):
    contract_id: str


class _RetrieveBars(msgspec.Struct, rename="camel"):
    contract_id: str
    start_time: str
    end_time: str
    unit: Unit = Unit.MINUTE
    unit_number: Annotated[int, msgspec.Meta(ge=1)] = 1
    limit: Annotated[int, msgspec.Meta(ge=1)] = _BARS_LIMIT
    live: bool = False
    include_partial_bar: bool = False


class Accounts:
    """Who may enter: any user with the key, then whoever bears a token that lives.

    Args:
        api_key: The one key that is accepted.
        token_life_s: How long a token lives; its `exp` claim says so.
    """

    def __init__(self, api_key: str, token_life_s: float) -> None:
        self._api_key = api_key
        self._token_life_s = token_life_s
        self._dies_s: dict[str, float] = {}
        self._expired: set[str] = set()

    def login(self, user_name: str, api_key: str) -> str | None:
        """A new token, or None for a wrong key."""
        return self._issue(user_name) if secrets.compare_digest(api_key.encode(), self._api_key.encode()) else None

    def renew(self, token: str) -> str | None:
        """A new token for one that lives or has expired; None for one that was revoked or never given."""
        return self._issue("renewed") if self.accepts(token) or token in self._expired else None

    def accepts(self, token: str) -> bool:
        """Whether the token opens a door."""
        return self._dies_s.get(token, 0) > time.time()

    def expire(self) -> None:
        """End all tokens; they can still be renewed."""
        self._expired.update(self._dies_s)
        self._dies_s.clear()

    def revoke(self) -> None:
        """End all tokens for good."""
        self._expired.clear()
        self._dies_s.clear()

    def _issue(self, user_name: str) -> str:
        now_s = time.time()
        self._dies_s = {token: dies_s for token, dies_s in self._dies_s.items() if dies_s > now_s}
        dies_s = now_s + self._token_life_s
        parts = {"alg": "none", "typ": "JWT"}, {"name": user_name, "exp": int(dies_s)}
        encoded = [base64.urlsafe_b64encode(msgspec.json.encode(part)).decode().rstrip("=") for part in parts]
        token = ".".join([*encoded, secrets.token_urlsafe(32)])
        self._dies_s[token] = dies_s
        return token


class Quota:
    """At most so many requests in a sliding window."""

    def __init__(self, requests: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._times: deque[float] = deque(maxlen=requests)

    def admits(self) -> bool:
        """Whether one more is within the limit; it is counted if so."""
        now = self._clock()
        full = len(self._times) == self._times.maxlen
        if full and now - self._times[0] < self._window_s:
            return False
        self._times.append(now)
        return True


def bearer(request: web.Request) -> str:
    """The token that a request bears, in its header or (as a hub's client must) in its query."""
    header = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ") or request.query.get("access_token", "")


Body = TypeVar("Body", _LoginKey, _Search, _SearchById, _RetrieveBars)


async def _body(request: web.Request, model: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.read(), type=model)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def _answer(error_code: int = 0, message: str | None = None, **fields: object) -> web.Response:
    body = fields | {"success": error_code == 0, "errorCode": error_code, "errorMessage": message}
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


class RestServer:
    """The REST endpoints.

    Args:
        accounts: Who may enter.
        contracts: What is listed.
        active: The ids of those that are active.
        history: The trades that bars are made of.
        limited: Whether the documented limits hold (50 bars requests in 30 s, 200 others in 60 s, a user).
        trouble: Asked before every answer: the status of the fault that is in force, if any.
    """

    def __init__(
        self,
        accounts: Accounts,
        contracts: Sequence[Contract],
        active: frozenset[str],
        history: History,
        *,
        limited: bool,
        trouble: Callable[[], int | None],
    ) -> None:
        self._accounts = accounts
        self._contracts = {contract.contract_id: contract for contract in contracts}
        self._active = active
        self._history = history
        self._limited = limited
        self._trouble = trouble
        self._quotas = defaultdict[str, dict[bool, Quota]](lambda: {True: Quota(50, 30.0), False: Quota(200, 60.0)})

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the endpoints into an application."""
        router.add_post("/api/Auth/loginKey", self._open(self._login))
        router.add_post("/api/Auth/validate", self._open(self._validate))
        router.add_post("/api/Contract/search", self._closed(self._search))
        router.add_post("/api/Contract/searchById", self._closed(self._search_by_id))
        router.add_post("/api/Contract/available", self._closed(self._available))
        router.add_post("/api/History/retrieveBars", self._closed(self._retrieve_bars))

    def _open(self, endpoint: _Endpoint) -> _Endpoint:
        """An endpoint for everyone, in spite of faults and within limits."""

        async def guarded(request: web.Request) -> web.Response:
            status = self._trouble()
            if status is not None:
                return web.Response(status=status)
            if self._limited and not self._quotas[bearer(request)]["retrieveBars" in request.path].admits():
                return web.Response(status=429)
            return await endpoint(request)

        return guarded

    def _closed(self, endpoint: _Endpoint) -> _Endpoint:
        """An endpoint for those who bear a token that lives."""

        async def guarded(request: web.Request) -> web.Response:
            return await endpoint(request) if self._accounts.accepts(bearer(request)) else web.Response(status=401)

        return self._open(guarded)

    async def _login(self, request: web.Request) -> web.Response:
        body = await _body(request, _LoginKey)
        token = self._accounts.login(body.user_name, body.api_key)
        return _answer(0 if token else _INVALID_CREDENTIALS, token=token)

    async def _validate(self, request: web.Request) -> web.Response:
        token = self._accounts.renew(bearer(request))
        return _answer(0 if token else _EXPIRED_TOKEN, newToken=token)

    async def _search(self, request: web.Request) -> web.Response:
        text = (await _body(request, _Search)).search_text.upper()
        found = [c for c in self._contracts.values() if text in f"{c.name} {c.symbol_id} {c.description}".upper()]
        return _answer(contracts=[self._describe(contract) for contract in found[:_SEARCH_LIMIT]])

    async def _search_by_id(self, request: web.Request) -> web.Response:
        contract = self._contracts.get((await _body(request, _SearchById)).contract_id)
        if contract is None:
            return _answer(_CONTRACT_NOT_FOUND, "Contract not found", contract=None)
        return _answer(contract=self._describe(contract))

    async def _available(self, _: web.Request) -> web.Response:
        return _answer(contracts=[self._describe(c) for i, c in self._contracts.items() if i in self._active])

    async def _retrieve_bars(self, request: web.Request) -> web.Response:
        body = await _body(request, _RetrieveBars)
        if body.contract_id not in self._contracts:
            return _answer(_CONTRACT_NOT_FOUND, "Contract not found", bars=None)
        try:
            start_ns, end_ns = parse_ns(body.start_time), parse_ns(body.end_time)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        bars = self._history.bars(
            body.contract_id, start_ns, end_ns, body.unit, body.unit_number, partial=body.include_partial_bar
        )
        return _answer(bars=[bar.wire() for bar in reversed(bars)][: min(body.limit, _BARS_LIMIT)])

    def _describe(self, contract: Contract) -> dict[str, object]:
        return {
            "id": contract.contract_id,
            "name": contract.name,
            "description": contract.description,
            "tickSize": contract.tick_size,
            "tickValue": contract.tick_value,
            "activeContract": contract.contract_id in self._active,
            "symbolId": contract.symbol_id,
        }


if TYPE_CHECKING:
    _Endpoint = Callable[[web.Request], Awaitable[web.Response]]
