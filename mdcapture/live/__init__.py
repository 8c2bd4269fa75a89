"""The same numbers while the market runs: the book and the metrics, one event after the other."""
