"""The exit codes of `daybook`."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended. From 64 to 78, the codes are those of `sysexits.h`."""

    DONE = 0
    NO = 1
    USAGE = 2
    DIFFERENT = 3
    DEAD_LETTERS = 4
    DATA = 65
    UNAVAILABLE = 69
    DEFECT = 70
    FILE = 74
    DENIED = 77
    SETTINGS = 78
    INTERRUPTED = 130
    READER_GONE = 141
