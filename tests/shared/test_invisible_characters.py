"""One rule says which characters no text may have. It is the same for names, references, metadata and log lines."""

import sys
import unicodedata

import pytest
from pydantic import TypeAdapter, ValidationError

from command_api.domain.command_fields import Metadata
from shared.invisible_characters import has_invisible
from shared.logs import escaped
from shared.text_types import DisplayName, Reference

BIDI_CONTROL = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
OTHER_DEFAULT_IGNORABLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x3164, 0xFFA0, *range(0xFFF0, 0xFFF9)} | {
    point for point in range(0xE0000, 0xE1000) if unicodedata.category(chr(point)) in {"Cn", "Mn"}
}
VARIATION_SELECTORS = {0x180B, 0x180C, 0x180D, 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
VISIBLE_FORMAT_CHARACTERS = {
    *(*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD),  # they stand before digits
    *range(0xFFF9, 0xFFFC),
    *range(0x13430, 0x13440),
}
ACCEPTED_BEFORE = ["a", "é", "ß", "Ω", "中", "한", "👍", "e\u0301", "№", "\u0600", "a b"]


def expected(point: int) -> bool:
    """Derives the answer from categories, as Unicode derives Default_Ignorable_Code_Point in DerivedCoreProperties.txt."""
    category = unicodedata.category(chr(point))
    is_format = category == "Cf" and point not in VISIBLE_FORMAT_CHARACTERS
    is_ignorable = is_format or point in OTHER_DEFAULT_IGNORABLE or point in VARIATION_SELECTORS
    return category in {"Cc", "Zl", "Zp"} or is_ignorable or point in BIDI_CONTROL


def test_the_table_agrees_with_unicodes_data_at_every_code_point() -> None:
    wrong = [f"U+{point:04X}" for point in range(sys.maxunicode + 1) if has_invisible(chr(point)) != expected(point)]
    assert wrong == []


@pytest.mark.parametrize("point", [0x00AD, 0x061C, 0x115F, 0x200B, 0x200D, 0x2060, 0x206A, 0x3164, 0xFE0F, 0xFEFF, 0xE0041])
def test_every_free_text_refuses_an_invisible_character_wherever_it_stands(point: int) -> None:
    for text in (f"a{chr(point)}b", f"{chr(point)}a", f"a{chr(point)}"):
        for kind, value in ((DisplayName, text), (Reference, text), (Metadata, {"key": text})):
            with pytest.raises(ValidationError):
                TypeAdapter(kind).validate_python(value)
        assert chr(point) not in escaped(text), "log lines show its number instead"


@pytest.mark.parametrize("text", ACCEPTED_BEFORE)
def test_letters_marks_and_symbols_that_can_be_seen_are_accepted(text: str) -> None:
    assert TypeAdapter(DisplayName).validate_python(text) == text
    assert not has_invisible(text)
