"""Room 9, one file for each command: translate options, call one analysis, hand the result to the renderer.

A file `virt_blocks.py` here is the command `virt-blocks`; it exposes `command` (click). Files that start with an
underscore are no commands. Imports of anything heavier than click happen inside the functions, so that `--help` stays
quick.
"""
