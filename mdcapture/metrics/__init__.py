"""Microstructure metrics: plain functions on polars frames, each with its formula, its paper and its options."""
