"""Capture from Python: what to capture, for how long, and what came of it.

    python examples/capture.py topstepx 3600 MNQ ES              a gateway, seconds, contracts
    python examples/capture.py http://127.0.0.1:5000 10 MNQ      the local gateway of `mdcapture simulate`

The user name and the key are read from MDCAPTURE_USERNAME and MDCAPTURE_API_KEY_FILE (or MDCAPTURE_API_KEY). Ctrl-C
ends it, and seals what has arrived.
"""

from __future__ import annotations

import sys

import mdcapture as md


def main(gateway: str, duration_s: float, contracts: list[str], lake: str = "data") -> None:
    """Capture, and print what the session holds."""
    config = md.Config(gateway=gateway, contracts=contracts, duration_s=duration_s, lake=lake)
    with md.Recorder(config) as recorder:
        captured = recorder.run()
    session = md.open_lake(lake).session(captured.session_id)
    print(session)
    for contract in session.contracts:
        trades = session.trades(contract.contract_id).collect()
        print(f"{contract.name}: {trades.height} trades, {trades['volume'].sum()} lots")
    if captured.rejects or not session.gaps().collect().is_empty():
        print("some data were unusable or can be missing: see the tables rejects and incidents")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
