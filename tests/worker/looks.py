"""Looking at a plane that has to show something."""

from __future__ import annotations

from mdevdisplay import Frame, PlaneType
from mdevdisplay.reading import DisplayReader


def captured(reader: DisplayReader, plane: PlaneType = PlaneType.PRIMARY) -> Frame:
    """Return a new frame of what a plane shows."""
    picture = reader.look(plane)
    assert isinstance(picture, Frame), picture
    return picture
