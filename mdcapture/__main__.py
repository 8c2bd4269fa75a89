"""`python -m mdcapture`."""

from mdcapture.cli import main

main()
