"""Names and URLs of gateways."""

from __future__ import annotations

import traceback

import pytest

from mdcapture.errors import UsageError
from mdcapture.gateway.endpoints import endpoints


@pytest.mark.parametrize(
    ("gateway", "api", "hub"),
    [
        ("topstepx", "https://api.topstepx.com", "wss://rtc.topstepx.com/hubs/market"),
        (" TopstepX ", "https://api.topstepx.com", "wss://rtc.topstepx.com/hubs/market"),
        (
            "demo",
            "https://gateway-api-demo.s2f.projectx.com",
            "wss://gateway-rtc-demo.s2f.projectx.com/hubs/market",
        ),
        ("thefirm", "https://api.thefirm.projectx.com", "wss://rtc.thefirm.projectx.com/hubs/market"),
        ("api.thefirm.com", "https://api.thefirm.com", "wss://rtc.thefirm.com/hubs/market"),
        ("https://api.thefirm.com/", "https://api.thefirm.com", "wss://rtc.thefirm.com/hubs/market"),
        ("https://api.thefirm.com:8443", "https://api.thefirm.com:8443", "wss://rtc.thefirm.com:8443/hubs/market"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", "ws://127.0.0.1:5000/hubs/market"),
        ("http://[::1]:5000", "http://[::1]:5000", "ws://[::1]:5000/hubs/market"),
        ("https://gate.firm.com/projectx/", "https://gate.firm.com/projectx", "wss://gate.firm.com/hubs/market"),
    ],
)
def test_the_hub_follows_from_the_api(gateway: str, api: str, hub: str):
    assert endpoints(gateway) == (api, hub)


@pytest.mark.parametrize(
    ("given", "hub"),
    [
        ("wss://elsewhere.com/hubs/other", "wss://elsewhere.com/hubs/other"),
        ("https://elsewhere.com/hubs/market", "wss://elsewhere.com/hubs/market"),
        ("http://127.0.0.1:1", "ws://127.0.0.1:1/hubs/market"),
        ("elsewhere.com/", "wss://elsewhere.com/hubs/market"),
    ],
)
def test_a_hub_that_is_given_is_taken(given: str, hub: str):
    assert endpoints("topstepx", given) == ("https://api.topstepx.com", hub)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host",
        "https://",
        "https://user:s1gnature@host",
        "https://host?access_token=s1gnature",
        "https://host#s1gnature",
        "https://host:s1gnature",
        "https://s1gnature host",
        "",
    ],
)
def test_what_is_no_address_is_refused_without_being_repeated(url: str):
    for arguments in ((url,), ("topstepx", url)):
        with pytest.raises(UsageError, match="Give a URL, or a name") as refusal:
            endpoints(*arguments)
        assert "s1gnature" not in "".join(traceback.format_exception(refusal.value, chain=True))
