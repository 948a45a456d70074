"""Finds characters that cannot be seen, break a line or turn the direction of a text.

With them, two texts that differ look the same, and a log or a terminal shows something else than was written. The rule is the
same wherever Daybook takes free text: names, references, values of metadata. Log lines escape these characters.
"""

import re
from typing import Final

_IGNORABLE: Final = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
"""Bidi_Control and Default_Ignorable_Code_Point of Unicode 14.0, as ranges. Perl 5.36, which has this version, printed them for
`[\\p{Bidi_Control}\\p{Default_Ignorable_Code_Point}]`. A test derives them again from the categories that Python knows."""

_BREAKING: Final = ((0x0000, 0x001F), (0x007F, 0x009F), (0x2028, 0x2029))
"""Control characters, which break logs and terminals, and the separators of lines and paragraphs."""

_INVISIBLE: Final = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in (*_BREAKING, *_IGNORABLE)) + "]")


def has_invisible(text: str) -> bool:
    return _INVISIBLE.search(text) is not None
