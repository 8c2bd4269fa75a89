"""The hub's life: what is told, in which order, with which times, and what is worth another try."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from fake_hub import (
    DEPTH,
    QUOTES,
    TRADES,
    Call,
    FakeHub,
    Listener,
    S,
    Tokens,
    aside,
    capture,
    record,
    says_close,
    seen,
    sends,
)
from virtual_time import virtual_time
from websockets.exceptions import ConnectionClosed

from mdcapture.errors import RefusedError, StorageError, UnreachableError
from mdcapture.gateway.connection import Timing
from mdcapture.gateway.retry import RetryPolicy

# Subscriptions.


@virtual_time
async def test_a_refused_subscription_is_told_and_tried_again():
    async def script(call: Call) -> None:
        refused = len(call.hub.invocations) < 3
        await call.complete("not now" if refused else None)

    listener = Listener(lambda it: it.of("subscribed"))
    async with FakeHub(script) as server:
        await capture(server.url, listener, policy=RetryPolicy(first_s=4, max_s=60))
    assert [each.detail for each in listener.of("subscribe_failed")] == ["not now", "not now"]
    assert [each.from_ns for each in listener.of("subscribing")] == [0, 4 * S, 12 * S]
    assert [(each.from_ns, each.to_ns) for each in listener.of("subscribed")] == [(12 * S, 12 * S)]


@virtual_time
async def test_a_subscription_without_a_completion_has_failed_after_a_time():
    async def script(call: Call) -> None:
        if len(call.hub.invocations) > 1:
            await call.complete()

    listener = Listener(lambda it: it.of("subscribed"))
    async with FakeHub(script) as server:
        await capture(server.url, listener, timing=Timing(completion_s=10))
    (failed,) = listener.of("subscribe_failed")
    assert (failed.from_ns, failed.to_ns, failed.detail) == (0, 10 * S, "no completion within 10 s")


@virtual_time
async def test_a_completion_that_comes_too_late_counts_no_more():
    async def script(call: Call) -> None:
        if len(call.hub.invocations) == 1:
            await asyncio.sleep(11)
            await call.complete()
            await call.send(record(1))
        else:
            await call.complete()

    listener = Listener(lambda it: it.of("subscribed"))
    async with FakeHub(lambda call: aside(script(call))) as server:
        await capture(server.url, listener, timing=Timing(completion_s=10), policy=RetryPolicy(first_s=5))
    assert listener.records == [record(1)]
    assert [each.from_ns for each in listener.of("subscribed")] == [15 * S]


@virtual_time
async def test_a_completion_that_comes_twice_counts_once():
    async def script(call: Call) -> None:
        completion: dict[str, object] = {"type": 3, "invocationId": call.invocation_id}
        await call.send(completion, completion, {"type": 3, "invocationId": "never asked"}, record(1))

    listener = Listener(seen(1))
    async with FakeHub(script) as server:
        await capture(server.url, listener)
    assert listener.log[2:] == [("subscribed", "trades"), ("record", record(1))]


@virtual_time
async def test_a_new_attempt_ends_the_one_that_waits():
    async def script(call: Call) -> None:
        if call.target.startswith("Unsubscribe"):
            await call.complete()

    listener = Listener(lambda it: it.of("subscribe_failed"))
    async with FakeHub(script) as server:
        task = asyncio.create_task(capture(server.url, listener, timing=Timing(completion_s=10)))
        await asyncio.sleep(3)
        listener.hub.resubscribe(TRADES)
        await task
    (failed,) = listener.of("subscribe_failed")
    assert (failed.from_ns, failed.to_ns) == (3 * S, 13 * S)


@virtual_time
async def test_what_waits_on_a_connection_ends_with_it():
    async def script(call: Call) -> None:
        if call.number == 1:
            await says_close(call)
        else:
            await call.complete()
            await asyncio.sleep(20)
            await call.send(record(1))

    listener = Listener(seen(1))
    async with FakeHub(script) as server:
        await capture(server.url, listener, timing=Timing(completion_s=10))
    assert listener.of("subscribe_failed") == []


@virtual_time
async def test_a_subscription_can_be_asked_for_once_more_without_being_ended():
    listener = Listener(lambda it: len(it.of("subscribed")) == 2)
    async with FakeHub() as server:
        task = asyncio.create_task(capture(server.url, listener))
        await asyncio.sleep(1)
        listener.hub.subscribe([TRADES], again=True)
        await task
        assert [target for _, target, _ in server.invocations] == ["SubscribeContractTrades"] * 2


@virtual_time
async def test_streams_come_and_go_on_a_running_connection():
    async with FakeHub() as server:
        listener = Listener(lambda it: len(it.of("subscribed")) == 3)
        task = asyncio.create_task(capture(server.url, listener))
        await asyncio.sleep(1)
        assert listener.hub.connected
        listener.hub.subscribe([TRADES, DEPTH])  # the first is wanted already
        await asyncio.sleep(1)
        listener.hub.unsubscribe([TRADES, QUOTES])  # the second never was
        await asyncio.sleep(1)
        listener.hub.resubscribe(DEPTH)
        listener.hub.resubscribe(TRADES)  # not wanted any more
        await task
        assert [target for _, target, _ in server.invocations] == [
            "SubscribeContractTrades",
            "SubscribeContractMarketDepth",
            "UnsubscribeContractTrades",
            "UnsubscribeContractMarketDepth",
            "SubscribeContractMarketDepth",
        ]


@virtual_time
async def test_to_subscribe_anew_is_told_with_its_reason_before_it_is_done():
    async with FakeHub() as server:
        listener = Listener(lambda it: len(it.of("subscribed")) == 2)
        task = asyncio.create_task(capture(server.url, listener))
        await asyncio.sleep(1)
        listener.hub.resubscribe(TRADES, "silent for 60 s")
        await task
    assert [kind for kind, _ in listener.log][-3:] == ["resubscribed", "subscribing", "subscribed"]
    (told,) = listener.of("resubscribed")
    assert (told.stream, told.contract_id, told.from_ns, told.detail) == (*TRADES, 1 * S, "silent for 60 s")


@virtual_time
async def test_without_a_connection_there_is_nothing_to_subscribe_anew():
    listener = Listener(lambda it: it.of("reconnecting"))
    async with FakeHub(statuses=[(503, {})]) as server:
        hub = await capture(server.url, listener)
    hub.resubscribe(TRADES)
    hub.reconnect("nothing")
    assert listener.of("resubscribed") == []


@virtual_time
async def test_a_subscription_that_can_not_be_ended_is_made_anew_all_the_same():
    async def script(call: Call) -> None:
        if not call.target.startswith("Unsubscribe"):
            await call.complete()

    async with FakeHub(script) as server:
        listener = Listener(lambda it: len(it.of("subscribed")) == 2)
        task = asyncio.create_task(capture(server.url, listener, timing=Timing(completion_s=10)))
        await asyncio.sleep(1)
        listener.hub.resubscribe(TRADES)
        await task
    assert [each.from_ns for each in listener.of("subscribed")] == [0, 11 * S]


@virtual_time
async def test_a_hub_that_pings_but_does_not_answer_is_given_up():
    async def script(call: Call) -> None:
        if call.number == 2:
            await call.complete()
        else:
            await call.ping_for(100)

    listener = Listener(lambda it: it.of("subscribed"))
    async with FakeHub(lambda call: aside(script(call))) as server:
        await capture(server.url, listener, timing=Timing(completion_s=10), policy=RetryPolicy(first_s=1, max_s=2))
    assert len(listener.of("subscribe_failed")) == 3
    (lost,) = listener.of("disconnected")
    assert "the hub has not answered 3 subscriptions to trades" in lost.detail
    assert lost.to_ns == (10 + 1 + 10 + 2 + 10) * S


@virtual_time
async def test_a_hub_that_never_answers_one_subscription_is_given_up_for_it_ever_less_often():
    async def script(call: Call) -> None:
        if call.target == "SubscribeContractQuotes":
            await call.complete()
            with contextlib.suppress(ConnectionClosed):
                await call.ping_for(40_000)

    listener = Listener()
    async with FakeHub(lambda call: aside(script(call))) as server:
        task = asyncio.create_task(
            capture(server.url, listener, wanted=(QUOTES, TRADES), timing=Timing(completion_s=10))
        )
        await asyncio.sleep(10_000)
        listener.hub.stop()
        await task
        lasted_s = [after - before for before, after in itertools.pairwise(server.tried_s)]
    told = [each.detail.split(":")[0] for each in listener.of("disconnected")]
    assert told == [f"the hub has not answered {times} subscriptions to trades" for times in (3, 9, 27, 81)]
    assert all(after > 2 * before for before, after in itertools.pairwise(lasted_s))


@virtual_time
async def test_a_hub_that_has_answered_again_gets_no_more_patience_than_at_first():
    async def script(call: Call) -> None:
        if call.target == "SubscribeContractQuotes" or call.number == 2:
            await call.complete()
        with contextlib.suppress(ConnectionClosed):
            await call.ping_for(100)

    listener = Listener(lambda it: len(it.of("disconnected")) == 3)
    async with FakeHub(lambda call: aside(script(call))) as server:
        task = asyncio.create_task(
            capture(server.url, listener, wanted=(QUOTES, TRADES), timing=Timing(completion_s=10))
        )
        await asyncio.sleep(60)
        assert len(listener.of("subscribed")) == 3
        listener.hub.reconnect("for once")
        await task
    details = [each.detail for each in listener.of("disconnected")]
    assert details[1] == "for once"
    assert all("has not answered 3 subscriptions" in detail for detail in details[::2])


@virtual_time
async def test_what_was_unsubscribed_stays_away_after_a_reconnect():
    async with FakeHub() as server:
        listener = Listener(lambda it: len(it.of("subscribed")) == 3)
        task = asyncio.create_task(capture(server.url, listener, wanted=(TRADES, DEPTH)))
        await asyncio.sleep(1)
        listener.hub.unsubscribe([DEPTH])
        await asyncio.sleep(1)
        listener.hub.reconnect("the trades stalled")
        await task
        assert [target for number, target, _ in server.invocations if number == 2] == ["SubscribeContractTrades"]
    (lost,) = listener.of("disconnected")
    assert lost.detail == "the trades stalled"


@virtual_time
async def test_pauses_grow_while_nothing_holds():
    async def script(call: Call) -> None:
        await says_close(call)

    listener = Listener(lambda it: len(it.of("connected")) == 6)
    async with FakeHub(script) as server:
        await capture(server.url, listener, policy=RetryPolicy(first_s=1, factor=2, max_s=5))
        assert server.tried_s == [0, 1, 3, 7, 12, 17]


@virtual_time
async def test_a_connection_that_held_makes_pauses_short_again():
    async def script(call: Call) -> None:
        await call.complete()
        if call.number == 4:
            await call.ping_for(60)
        await says_close(call)

    listener = Listener(lambda it: len(it.of("connected")) == 6)
    async with FakeHub(script) as server:
        await capture(server.url, listener, policy=RetryPolicy(first_s=1, factor=2, max_s=60, held_s=60))
        assert server.tried_s == [0, 1, 3, 7, 68, 70]


@virtual_time
async def test_a_logout_backs_off_longer_each_time_and_takes_a_new_login():
    logout = b'{"type":1,"target":"GATEWAYLogout","arguments":[]}'

    listener = Listener(lambda it: len(it.of("connected")) == 4)
    tokens = Tokens()
    async with FakeHub(sends(record(1), logout)) as server:
        await capture(server.url, listener, token=tokens)
        assert server.tried_s == [0, 30, 90, 210]
        assert server.paths == [f"/hubs/market?access_token=token-{number}" for number in (1, 2, 3, 4)]
    assert listener.records == [record(1), logout] * 3
    assert len(listener.of("logged_out")) == 3
    assert "logged this user out" in listener.of("disconnected")[0].detail


@virtual_time
async def test_the_first_cause_of_an_end_counts():
    async def script(call: Call) -> None:
        await call.send(b'{"type":1,"target":"GatewayLogout","arguments":[]}', {"type": 7, "error": "and goodbye"})

    listener = Listener(lambda it: len(it.of("connected")) == 2)
    async with FakeHub(script) as server:
        await capture(server.url, listener)
        assert server.tried_s == [0, 30]


# Refusals, and how many tries they are worth.


@virtual_time
async def test_an_expired_token_is_renewed_at_once_and_once():
    tokens = Tokens()
    listener = Listener(lambda it: it.of("subscribed"))
    async with FakeHub(statuses=[(401, {})]) as server:
        await capture(server.url, listener, token=tokens)
        assert server.tried_s == [0, 0]
        assert server.paths[1].endswith("=token-2")
    assert tokens.refused == [None, "token-1"]


@pytest.mark.parametrize("status", [401, 403])
@virtual_time
async def test_a_login_that_is_refused_with_a_fresh_token_is_final_at_the_start(status: int):
    async with FakeHub(statuses=[(status, {})] * 2) as server:
        with pytest.raises(RefusedError, match=f"HTTP {status}"):
            await capture(server.url, Listener())
        assert len(server.paths) == 2


@virtual_time
async def test_a_login_that_is_refused_later_may_be_accepted_again():
    async def script(call: Call) -> None:
        if call.number == 1:
            call.hub.statuses = [(401, {})] * 3 + [(404, {})]
            await says_close(call)
        else:
            await call.complete()

    listener = Listener(lambda it: it.of("subscribed"))
    async with FakeHub(script) as server:
        await capture(server.url, listener, policy=RetryPolicy(first_s=1, factor=1))
        assert server.tried_s == [0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize("status", [400, 403, 404, 422])
@virtual_time
async def test_whatever_is_answered_once_a_connection_stood_may_be_maintenance(status: int):
    async def script(call: Call) -> None:
        if call.number == 1:
            call.hub.statuses = [(status, {})] * 3
            await says_close(call)
        else:
            await call.complete()

    listener = Listener(lambda it: it.of("subscribed"))
    async with FakeHub(script) as server:
        await capture(server.url, listener)
        assert len(server.paths) == 5


@pytest.mark.parametrize("status", [400, 422])
@virtual_time
async def test_a_request_that_makes_no_sense_is_final_at_the_start(status: int):
    async with FakeHub(statuses=[(status, {})]) as server:
        with pytest.raises(RefusedError, match="can't make sense"):
            await capture(server.url, Listener())
        assert len(server.paths) == 1


@pytest.mark.parametrize(
    ("status", "header", "next_s"), [(429, "7", 7), (503, "7", 7), (503, "3600", 300), (500, "soon", 1), (502, None, 1)]
)
@virtual_time
async def test_a_gateway_in_trouble_is_left_alone_for_as_long_as_it_asks_within_reason(
    status: int, header: str | None, next_s: int
):
    listener = Listener(lambda it: it.of("subscribed"))
    headers = {} if header is None else {"Retry-After": header}
    async with FakeHub(statuses=[(status, headers)]) as server:
        await capture(server.url, listener, policy=RetryPolicy(first_s=1))
        assert server.tried_s == [0, next_s]
    (again,) = listener.of("reconnecting")
    assert f"HTTP {status}" in again.detail


@virtual_time
async def test_tries_end_when_the_policy_says_so():
    async with FakeHub(statuses=[(503, {})] * 9) as server:
        with pytest.raises(UnreachableError, match=r"HTTP 503.*given up after 4 tries in a row"):
            await capture(server.url, Listener(), policy=RetryPolicy(attempts=3))
        assert len(server.paths) == 4


@virtual_time
async def test_a_login_that_fails_for_good_ends_the_run():
    async def wrong_key(refused: str | None = None) -> str:  # noqa: ARG001
        raise RefusedError("wrong key")

    async with FakeHub() as server:
        with pytest.raises(RefusedError, match="wrong key"):
            await capture(server.url, Listener(), token=wrong_key)
        assert server.paths == []


@virtual_time
async def test_a_login_that_fails_for_now_is_tried_again():
    asked = []

    async def token(refused: str | None = None) -> str:
        asked.append(refused)
        if len(asked) < 3:
            raise UnreachableError("no network")
        return "token"

    async with FakeHub() as server:
        await capture(server.url, Listener(lambda it: it.of("subscribed")), token=token)
    assert asked == [None, None, None]


# Stopping, and the listener's own faults.


@virtual_time
async def test_stop_says_goodbye():
    async with FakeHub(sends(record(1))) as server:
        hub = await capture(server.url, Listener(seen(1)))
        assert not hub.connected
        await asyncio.sleep(1)
        assert server.closes == [1000]


@virtual_time
async def test_stop_ends_a_pause_and_a_run_that_has_not_begun():
    listener = Listener(lambda it: it.of("reconnecting"))
    async with FakeHub(statuses=[(503, {"Retry-After": "1000"})]) as server:
        hub = await capture(server.url, listener)
    assert asyncio.get_running_loop().time() < 1
    await hub.run()


@virtual_time
async def test_cancellation_from_outside_passes_through():
    async with FakeHub() as server:
        task = asyncio.create_task(capture(server.url, Listener()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("where", ["record", "connected", "subscribing", "subscribed"])
@virtual_time
async def test_what_the_listener_raises_comes_out_of_run(where: str):
    class Full(Listener):
        def check(self) -> None:
            if self.log[-1][0] == where:
                raise StorageError("disk full")

    async with FakeHub(sends(record(1))) as server:
        with pytest.raises(StorageError, match="disk full"):
            await capture(server.url, Full())
