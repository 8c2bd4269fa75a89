"""The REST client over real sockets, against an API that says what a test wants."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest
from aiohttp import web
from fake_hub import raw_server
from virtual_time import clock_ns, virtual_time

from mdcapture.errors import ConfigError, GatewayError, ProtocolError, RefusedError, UnreachableError
from mdcapture.gateway.refusals import UnauthorizedError
from mdcapture.gateway.rest import Bar, BarUnit, Credentials, RestClient
from mdcapture.gateway.retry import RetryPolicy
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

KEY = "K3Y+/s1gnature="
ME = Credentials("someone", KEY)
LOGIN, VALIDATE = "/api/Auth/loginKey", "/api/Auth/validate"
SEARCH, BY_ID, AVAILABLE = "/api/Contract/search", "/api/Contract/searchById", "/api/Contract/available"
BARS = "/api/History/retrieveBars"
OK = {"success": True, "errorCode": 0, "errorMessage": None}
BP6 = {
    "id": "CON.F.US.BP6.U26",
    "name": "6BU6",
    "description": "British Pound (Globex): September 2026",
    "tickSize": 0.0001,
    "tickValue": 6.25,
    "activeContract": True,
    "symbolId": "F.US.BP6",
    "somethingNew": [1],
}


def jwt(life_s: float, issued_s: float = 0) -> str:
    claims = json.dumps({"sub": "s1gnature", "iat": issued_s, "exp": issued_s + life_s}).encode()
    return f"eyJhbGciOi.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.s1gnature"


class FakeApi:
    """Serves, for each path, the answers that a test has lined up, the last one again and again."""

    def __init__(self, **tokens: str) -> None:
        self.answers: dict[str, deque[Any]] = defaultdict(deque)
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.asked_s: list[float] = []
        self.answers[LOGIN].append(OK | {"token": tokens.get("token", "token-1")})

    def say(self, path: str, *answers: object) -> None:
        self.answers[path] = deque(answers)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, await request.json(), request.headers.get("Authorization")))
        self.asked_s.append(asyncio.get_running_loop().time())
        answers = self.answers[request.path]
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        answer = answer(self.asked[-1][1]) if callable(answer) else answer
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


def client(api: FakeApi, **options: Any) -> RestClient:  # noqa: ANN401  # as RestClient takes them
    return RestClient(api.url, ME, clock=clock_ns, random=lambda: 0.0, **options)


def refusal(code: int, message: str | None = None) -> dict[str, object]:
    return {"success": False, "errorCode": code, "errorMessage": message}


# Tokens.


@virtual_time
async def test_a_login_sends_the_key_and_gives_the_token():
    async with FakeApi() as api, client(api) as rest:
        assert await rest.token() == "token-1"
        assert api.asked == [(LOGIN, {"userName": "someone", "apiKey": KEY}, None)]


@virtual_time
async def test_a_token_is_kept_and_callers_at_the_same_time_share_one_login():
    async with FakeApi() as api, client(api) as rest:
        assert set(await asyncio.gather(*(rest.token() for _ in range(5)))) == {"token-1"}
        assert api.paths() == [LOGIN]


@virtual_time
async def test_a_refused_token_is_not_given_again_but_a_newer_one_is():
    async with FakeApi() as api, client(api) as rest:
        api.say(LOGIN, OK | {"token": "first"}, OK | {"token": "second"})
        assert await rest.token() == "first"
        assert await rest.token("first") == "second"
        assert await rest.token("first") == "second"
        assert api.paths() == [LOGIN, LOGIN]


@pytest.mark.parametrize(
    ("token", "life_s"),
    [
        (jwt(1_000), 1_000),
        (jwt(1_000, issued_s=1e9), 1_000),  # whatever this machine's clock says
        ("no jwt", 86_400),
        ("a.b.c", 86_400),
        ("a.e30.c", 86_400),
        (jwt(-5), 86_400),
    ],
)
@virtual_time
async def test_a_token_is_renewed_before_it_expires(token: str, life_s: float):
    async with FakeApi(token=token) as api, client(api) as rest:
        api.say(VALIDATE, OK | {"newToken": "renewed"})
        assert await rest.token() == token
        await asyncio.sleep(life_s * 0.89)
        assert await rest.token() == token
        await asyncio.sleep(life_s * 0.02)
        assert await rest.token() == "renewed"
        assert api.asked[1:] == [(VALIDATE, {}, f"Bearer {token}")]


@pytest.mark.parametrize("answer", [refusal(1), refusal(3), web.Response(status=401)], ids=["1", "3", "401"])
@virtual_time
async def test_a_token_that_can_not_be_renewed_is_replaced_by_a_login(answer: object):
    async with FakeApi() as api, client(api) as rest:
        api.say(LOGIN, OK | {"token": "first"}, OK | {"token": "second"})
        api.say(VALIDATE, answer)
        await rest.token()
        await asyncio.sleep(80_000)
        assert await rest.token() == "second"


@virtual_time
async def test_a_token_that_still_lives_does_when_the_gateway_is_in_trouble():
    async with FakeApi() as api, client(api) as rest:
        api.say(VALIDATE, lambda _: web.Response(status=503))
        await rest.token()
        await asyncio.sleep(80_000)
        assert await rest.token() == "token-1"
        await asyncio.sleep(10_000)
        with pytest.raises(UnreachableError, match="HTTP 503"):
            await rest.token()


# Refusals.


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (1, "user name"),
        (3, "user name or the API key is wrong"),
        (7, "agreements"),
        (9, "API subscription"),
        (10, "switched off"),
    ],
)
@virtual_time
async def test_a_refused_login_says_what_to_do_and_is_not_repeated(code: int, hint: str):
    async with FakeApi() as api, client(api) as rest:
        api.say(LOGIN, refusal(code))
        with pytest.raises(RefusedError, match=rf"errorCode {code}\).*{hint}"):
            await rest.search("MNQ")
        assert api.paths() == [LOGIN]


@virtual_time
async def test_a_code_that_nobody_knows_may_pass():
    async with FakeApi() as api, client(api, policy=RetryPolicy(attempts=1)) as rest:
        api.say(LOGIN, refusal(99, "a\nmoment"), OK | {"token": "token"})
        api.say(AVAILABLE, OK | {"contracts": []})
        assert await rest.available() == []
        api.say(AVAILABLE, refusal(99, "a\nmoment"))
        with pytest.raises(UnreachableError, match="errorCode 99: a moment"):
            await rest.available()


@virtual_time
async def test_an_expired_token_is_replaced_once_in_the_middle_of_a_question():
    async with FakeApi() as api, client(api) as rest:
        api.say(LOGIN, OK | {"token": "first"}, OK | {"token": "second"})
        api.say(AVAILABLE, web.Response(status=401), OK | {"contracts": [BP6]})
        assert len(await rest.available()) == 1
        assert [bearer for _, _, bearer in api.asked] == [None, "Bearer first", None, "Bearer second"]
        api.say(AVAILABLE, lambda _: web.Response(status=401))
        with pytest.raises(UnauthorizedError, match="HTTP 401"):
            await rest.available()


@pytest.mark.parametrize(
    ("status", "retry_after", "pause_s"),
    [(429, "7", 7), (503, None, 1), (500, "0", 1), (429, "Thu, 01 Jan 1970 00:00:09 GMT", 9)],
)
@virtual_time
async def test_a_gateway_in_trouble_is_asked_again_after_the_pause_it_wants(
    status: int, retry_after: str | None, pause_s: float
):
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    async with FakeApi() as api, client(api, policy=RetryPolicy(first_s=1)) as rest:
        api.say(AVAILABLE, web.Response(status=status, headers=headers), OK | {"contracts": []})
        await rest.available()
        assert api.asked_s == [0, 0, pause_s]


@virtual_time
async def test_a_gateway_that_stays_in_trouble_is_given_up():
    async with FakeApi() as api, client(api, policy=RetryPolicy(attempts=2)) as rest:
        api.say(AVAILABLE, lambda _: web.Response(status=500))
        with pytest.raises(UnreachableError, match="HTTP 500"):
            await rest.available()
        assert api.paths() == [LOGIN, AVAILABLE, AVAILABLE, AVAILABLE]


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: web.Response(text="<html>maintenance</html>"),
        lambda _: web.Response(body=b"\xff\xfe"),
        lambda _: web.Response(text="[]"),
        lambda _: web.Response(text="[" * 100_000),
        lambda _: web.json_response({"contracts": [{"name": "no id"}]}),
        lambda _: web.Response(status=404),
        lambda _: web.Response(status=307, headers={"Location": "http://127.0.0.1:1/steal"}),
    ],
    ids=["html", "bytes", "array", "nested", "no id", "404", "redirect"],
)
@virtual_time
async def test_what_is_no_gateway_is_named_as_such(answer: object):
    async with FakeApi() as api, client(api) as rest:
        api.say(AVAILABLE, answer)
        with pytest.raises(ProtocolError, match=r"check --gateway|Check --gateway"):
            await rest.available()


@virtual_time
async def test_a_question_that_makes_no_sense_is_refused_with_the_servers_reason():
    async with FakeApi() as api, client(api) as rest:
        problem = {"title": "One or more validation errors occurred.", "status": 400, "errors": {"x": ["y"]}}
        api.say(AVAILABLE, lambda _: web.json_response(problem, status=400))
        with pytest.raises(RefusedError, match="validation errors"):
            await rest.available()


@virtual_time
async def test_an_endless_answer_is_cut():
    async with FakeApi() as api, client(api) as rest:
        api.say(AVAILABLE, lambda _: web.Response(body=b" " * (17 * 1024 * 1024)))
        with pytest.raises(ProtocolError, match="more than 16,777,216 bytes"):
            await rest.available()


@virtual_time
async def test_nobody_there():
    async with FakeApi() as api:
        pass
    async with client(api, policy=RetryPolicy(attempts=0)) as rest:
        with pytest.raises(UnreachableError, match=r"no connection to http://127\.0\.0\.1:\d+ \(Connection refused\)"):
            await rest.available()


@pytest.mark.parametrize(
    ("answer", "message"),
    [(b"", "did not answer in time"), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "in time")],
)
@virtual_time
async def test_no_answer_in_time(answer: bytes, message: str):
    async with raw_server(lambda _: answer) as where:
        async with RestClient(f"http://{where}", ME, policy=RetryPolicy(attempts=0), timeout_s=5) as rest:
            with pytest.raises(UnreachableError, match=message):
                await rest.token()
        assert asyncio.get_running_loop().time() == pytest.approx(5, abs=1)


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (b"", UnreachableError, "no connection to"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", UnreachableError, "no connection to"),
        (b"SSH-2.0\r\n\r\n", ProtocolError, "something else than HTTP"),
    ],
)
@virtual_time
async def test_an_answer_that_breaks_off_or_never_was_one(answer: bytes, expected: type[Exception], message: str):
    async with (
        raw_server(lambda _: answer, hang_up=True) as where,
        RestClient(f"http://{where}", ME, policy=RetryPolicy(attempts=0)) as rest,
    ):
        with pytest.raises(expected, match=message):
            await rest.token()


@virtual_time
async def test_a_server_without_tls_on_an_https_address():
    async with (
        raw_server(lambda _: b"") as where,
        RestClient(f"https://{where}", ME, policy=RetryPolicy(attempts=0), timeout_s=5) as rest,
    ):
        with pytest.raises(UnreachableError):
            await rest.token()


@virtual_time
async def test_a_session_that_was_handed_in_stays_open():
    async with FakeApi() as api, aiohttp.ClientSession() as session:
        async with client(api, session=session) as rest:
            await rest.token()
        assert not session.closed


# Contracts.


@pytest.mark.parametrize(
    "answer",
    [
        {"contracts": [BP6]},
        {"contract": BP6},
        {"contracts": None, "contract": BP6},
        {"contracts": [BP6], "contract": None},
    ],
)
@virtual_time
async def test_a_contract_is_found_in_either_form(answer: dict[str, object]):
    async with FakeApi() as api, client(api) as rest:
        api.say(BY_ID, OK | answer)
        listing = await rest.contract("CON.F.US.BP6.U26")
        assert listing.active
        assert listing.contract == Contract(
            contract_id="CON.F.US.BP6.U26",
            name="6BU6",
            description="British Pound (Globex): September 2026",
            tick_size=0.0001,
            tick_value=6.25,
            symbol_id="F.US.BP6",
            source="gateway",
        )
        assert api.asked[1] == (BY_ID, {"contractId": "CON.F.US.BP6.U26"}, "Bearer token-1")


@pytest.mark.parametrize(
    "answer", [OK, OK | {"contracts": []}, OK | {"contract": None}, refusal(1), OK | {"contract": BP6}]
)
@virtual_time
async def test_a_contract_that_does_not_exist_is_refused(answer: dict[str, object]):
    async with FakeApi() as api, client(api) as rest:
        api.say(BY_ID, answer)
        with pytest.raises(RefusedError, match=r"no such contract|knows no contract"):
            await rest.contract("CON.F.US.BP6.Z99")


@virtual_time
async def test_a_contract_of_which_little_is_known_is_still_one():
    async with FakeApi() as api, client(api, live=True) as rest:
        api.say(SEARCH, OK | {"contracts": [{"id": "CON.X", "name": None, "tickSize": None}]})
        ((contract, active),) = await rest.search("x")
        assert contract == Contract(contract_id="CON.X", source="gateway")
        assert not active
        assert api.asked[1][1] == {"searchText": "x", "live": True}


# Bars.


def bars_of(start_s: int, count: int) -> list[dict[str, object]]:
    return [
        {
            "t": f"1970-01-01T00:{s // 60:02}:{s % 60:02}+00:00",
            "o": s,
            "h": s + 1,
            "l": s - 1,
            "c": s + 0.25,
            "v": s * 2.0,
        }
        for s in range(start_s, start_s + count)
    ]


def history(total: int, *, most: int) -> Callable[[dict[str, Any]], dict[str, object]]:
    """Answers like the gateway: the newest `limit` (at most `most`) bars of the span, newest first."""

    def answer(question: dict[str, Any]) -> dict[str, object]:
        inside = [bar for bar in bars_of(0, total) if question["startTime"] <= str(bar["t"]) <= question["endTime"]]
        return OK | {"bars": inside[::-1][: min(question["limit"], most)]}

    return answer


@pytest.mark.parametrize("most", [7, 100, 1_000])
@virtual_time
async def test_bars_are_paged_from_the_newest_and_come_oldest_first(most: int):
    async with FakeApi() as api, client(api) as rest:
        api.say(BARS, history(100, most=most))
        bars = await rest.bars("CON.X", 10 * 10**9, 89 * 10**9, page=50)
        assert [bar.start_ns for bar in bars] == [s * 10**9 for s in range(10, 90)]
        assert bars[0] == Bar(10 * 10**9, 10.0, 11.0, 9.0, 10.25, 20)
        assert api.asked[1][1] == {
            "contractId": "CON.X",
            "live": False,
            "startTime": "1970-01-01T00:00:10+00:00",
            "endTime": "1970-01-01T00:01:29+00:00",
            "unit": 1,
            "unitNumber": 1,
            "limit": 50,
            "includePartialBar": False,
        }


@virtual_time
async def test_no_bars_are_none():
    async with FakeApi() as api, client(api) as rest:
        api.say(BARS, OK | {"bars": None})
        assert await rest.bars("CON.X", 0, 10**9, unit=BarUnit.DAY) == []


@virtual_time
async def test_bars_outside_of_the_span_do_not_lead_astray():
    async with FakeApi() as api, client(api) as rest:
        api.say(BARS, OK | {"bars": bars_of(0, 100)})
        assert len(await rest.bars("CON.X", 50 * 10**9, 59 * 10**9)) == 10


@virtual_time
async def test_a_bar_without_a_time_is_an_error():
    async with FakeApi() as api, client(api) as rest:
        api.say(BARS, OK | {"bars": [{"t": "yesterday", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}]})
        with pytest.raises(ProtocolError, match="yesterday"):
            await rest.bars("CON.X", 0, 1)


@virtual_time
async def test_questions_keep_to_the_documented_rates():
    async with FakeApi() as api, client(api) as rest:
        api.say(BARS, OK | {"bars": []})
        api.say(AVAILABLE, OK | {"contracts": []})
        for _ in range(51):
            await rest.bars("CON.X", 0, 1)
        bars_s = [at for path, at in zip(api.paths(), api.asked_s, strict=True) if path == BARS]
        assert bars_s[49] == 0
        assert bars_s[50] == 30
        for _ in range(201):
            await rest.available()
        others_s = [at for path, at in zip(api.paths(), api.asked_s, strict=True) if path == AVAILABLE]
        assert (others_s[198], others_s[199], others_s[200]) == (30, 60, 90)  # the login at 0 counts, too


# Secrets.


def test_credentials_do_not_show_the_key_and_can_not_be_empty():
    assert "s1gnature" not in f"{ME!r} {ME}"
    assert "someone" in repr(ME)
    for nothing in (("", KEY), ("someone", "")):
        with pytest.raises(ConfigError, match="MDCAPTURE_API_KEY"):
            Credentials(*nothing)


@virtual_time
async def test_no_secret_is_ever_told(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    token = jwt(1_000)
    echo = f"key {KEY} token {token} again {KEY}{token}"
    bad = [
        lambda _: refusal(3, echo),
        lambda _: web.json_response(refusal(3, echo), status=500),
        lambda _: web.json_response({"title": echo}, status=400),
        lambda _: web.Response(text=echo),
        lambda _: web.Response(status=302, headers={"Location": f"http://elsewhere/?{token}"}),
        lambda _: web.Response(status=401, text=echo),
    ]
    told = []
    async with FakeApi(token=token) as api, client(api, policy=RetryPolicy(attempts=0)) as rest:
        for path in (AVAILABLE, LOGIN):
            for answer in bad:
                api.say(path, answer)
                with pytest.raises(GatewayError) as failure:
                    await (rest.available() if path == AVAILABLE else rest.token(await rest.token()))
                told.append("".join(traceback.format_exception(failure.value)) + repr(failure.value))
                api.say(LOGIN, OK | {"token": token})
        told.append(repr(rest))
    async with (
        raw_server(lambda _: b"HTTP/1.1 what " + token.encode() + b"\r\n\r\n", hang_up=True) as where,
        RestClient(f"http://{where}", ME, policy=RetryPolicy(attempts=0)) as rest,
    ):
        with pytest.raises(GatewayError) as failure:
            await rest.token()
        told.append("".join(traceback.format_exception(failure.value)) + repr(failure.value))
    assert len(told) == 14
    for text in [*told, *(entry.getMessage() for entry in caplog.records)]:
        assert "s1gnature" not in text
