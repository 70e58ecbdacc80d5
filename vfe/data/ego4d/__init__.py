"""Ego4D as the egocentric works use it: narrated clips of long videos that are kept in chunks.

`source.open_egoclip` gives EgoClip's narrations to train on and EgoMCQ's clips to be measured by;
docs/video-text.md lists the files.
"""
