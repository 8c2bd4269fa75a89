"""Capture ProjectX market data without losing anything, and turn it into numbers that can be trusted."""
