"""Frames to charts: each a function that can be composed, drawn as PNG, SVG or HTML without a network."""
