"""From a surface in somebody's memory to pixels of ours: map, copy, convert, encode."""
