"""Asking the lake in SQL."""
