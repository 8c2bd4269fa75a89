"""Make the pictures of analysis.md: every chart, of an hour of the synthetic market. Run it from anywhere.

python docs/gallery.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from mdcapture.analysis.analyze import extracts
from mdcapture.analysis.kinds import Kind
from mdcapture.analysis.pictures import PICTURES, draw
from mdcapture.charts.drawing import save
from mdcapture.demo import synthesize

PIXELS = (Kind.PRICE, Kind.BOOK, Kind.FLOW)
"""Thousands of marks are smaller as pixels than as lines of SVG."""

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    """Draw each picture into docs/images."""
    with TemporaryDirectory() as folder:
        session = synthesize(Path(folder) / "lake", duration_s=3600, contracts=("ES", "MES", "MNQ"), rate=12.0, seed=7)
        parts = extracts(session)
        for kind in PICTURES:
            suffix = "png" if kind in PIXELS else "svg"
            save(draw(kind, parts), IMAGES / f"{kind}.{suffix}", scale=0.9)


if __name__ == "__main__":
    main()
