"""A local gateway: REST and hub over a tape, a captured session or a synthetic market, with faults on request."""
