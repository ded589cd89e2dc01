"""Flight recordings: what the node did around an event, second by second, kept on its disk.

flight     decides when to record; all that runs in a tick
ring       the last minutes, in memory
writer     the thread between the tick and the disk
archive    carries out what it is told, within bounds
store      names, sizes, locks and removal of recordings
tape       one recording while it is written
encode     snapshots as frames
decode     frames as samples, whatever has happened to the file
summary    what a recording amounts to
library    the recordings on disk, for those who read them
commands   list, show and export
picture    one recording as SVG, with svg, panel, traces and axis
"""
