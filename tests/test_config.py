"""Settings in Python: what a `Config` is, what `load_config` puts together, and what both refuse, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from pages import ROOT, blocks

import mdcapture as md

FILE = """
gateway = "http://127.0.0.1:5000"
contracts = ["ES"]
segment_s = "10m"
"""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of settings, and a variable."""
    (tmp_path / "mdcapture.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MDCAPTURE_LAKE", "elsewhere")
    return tmp_path


def test_arguments_stand_above_the_environment_and_the_file():
    loaded = md.load_config(contracts=["MNQ"], duration_s="5m")
    config = loaded.config
    assert (config.contracts, config.duration_s) == (["MNQ"], 300)
    assert (config.lake, config.gateway, config.segment_s) == ("elsewhere", "http://127.0.0.1:5000", 600)
    assert loaded.origins["contracts"] == "argument"
    assert loaded.origins["lake"] == "MDCAPTURE_LAKE"
    assert loaded.origins["gateway"] == "mdcapture.toml"
    assert loaded.origins["flush_ms"] == "default"


def test_a_config_is_what_it_is_told():
    config = md.Config(contracts=["MNQ"])
    assert (config.lake, config.gateway, config.segment_s) == ("./data", "topstepx", 300)


def test_the_page_shows_it():
    (block,) = blocks(ROOT / "docs/configuration.md", "python")
    names: dict[str, Any] = {}
    exec(compile(block, "configuration.md", "exec"), names)  # noqa: S102  # our own page
    assert names["config"] == md.Config(contracts=["MNQ"], lake="data")
    assert names["lake"] == "elsewhere"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"duration_s": "5m"}, {"duration_s": 300.0}),
        ({"contracts": "MNQ, ES"}, {"contracts": ["MNQ", "ES"]}),
        ({"contracts": ("MNQ",)}, {"contracts": ["MNQ"]}),
        ({"lake": Path("data")}, {"lake": "data"}),
        ({"count": "5", "quotes": "false"}, {"count": 5, "quotes": False}),
        ({"roll_time": ""}, {"roll_time": ""}),
        ({"log_file": None}, {"log_file": None}),
    ],
)
def test_values_are_taken_as_a_file_has_them(said: dict[str, Any], meant: dict[str, Any]):
    found = msgspec.structs.asdict(md.Config(**said))
    assert {name: found[name] for name in meant} == meant
    assert md.load_config(said, environ={}, file=Path("/dev/null")).config == md.Config(**meant)


WRONG = [
    ("duration_s", "10 parsecs", "duration_s: '10 parsecs' is no duration: write 90, 90s, 5m or 2h"),
    ("duration_s", "0", "duration_s = '0': expected `float` > 0.0"),
    ("segment_s", -1, "segment_s = -1: expected `float` > 0.0"),
    ("count", 2.5, "count = 2.5: expected `int | null`, got `float`"),
    ("contracts", 5, "contracts = 5: expected `array`, got `int`"),
    ("log_level", "loud", "log_level = 'loud': expected `debug`, `info`, `warning` or `error`"),
    ("publish", "postgresql://me:secret@host/database", "the address holds a password"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_what_is_wrong_is_refused_at_once_and_the_same_from_everywhere(
    surroundings: Path, name: str, value: object, says: str
):
    file = surroundings / "other.toml"
    file.write_text(f"{name} = {value!r}\n")
    calls = {
        "argument": [lambda: md.Config(**{name: value}), lambda: md.load_config(**{name: value})],
        str(file): [lambda: md.load_config(file=file), lambda: md.load_config(file=str(file))],
    }
    if isinstance(value, str):
        variable = f"MDCAPTURE_{name.upper()}"
        calls[variable] = [lambda: md.load_config(environ={variable: value})]
    for origin, several in calls.items():
        for call in several:
            with pytest.raises(md.ConfigError) as caught:
                call()
            told = str(caught.value)
            assert told == f"{origin}: {says}" or (name == "publish" and says in told and "secret" not in told)


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(md.ConfigError, match="argument: there is no setting 'contract'; did you mean 'contracts'"):
        md.load_config(contract="MNQ")


def test_a_changed_copy_is_checked_too():
    with pytest.raises(md.ConfigError, match="segment_s"):
        msgspec.structs.replace(md.Config(), segment_s=0)
