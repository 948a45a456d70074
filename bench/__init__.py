"""Measures Daybook beside what it is compared with, in one run on one machine; `python -m bench --help`.

Production never imports this room.
"""
