"""The way to a gateway (REST, hub, retry), and what stands for one: tapes, and what contracts are."""
