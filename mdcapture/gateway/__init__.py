"""The way to a gateway (REST, hub, retry), tapes, and a gateway of our own."""
