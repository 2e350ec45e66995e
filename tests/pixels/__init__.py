"""Tests of mdevdisplay.pixels."""
