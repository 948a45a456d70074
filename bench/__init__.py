"""Measure Daybook and its yardsticks in one run on one machine. See `python -m bench --help`.

Production code never imports this room.
"""
