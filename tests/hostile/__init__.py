"""Drivers, guests and workers that answer anything, and what a picture of theirs has to be."""
