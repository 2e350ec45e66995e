"""``python -m mdevdisplay``."""

from mdevdisplay.cli import main

main()
