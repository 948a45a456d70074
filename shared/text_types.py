"""Types of texts in commands. The command API uses them, and so do importers, which check all texts before they send any."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from shared.invisible_characters import has_invisible


def printable(value: str) -> str:
    if has_invisible(value) or value != value.strip():
        code = "text_unprintable"
        message = "Text must not contain control, direction or invisible characters, or begin or end with a space"
        raise PydanticCustomError(code, message)
    return value


DisplayName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
Reference = Annotated[str, Field(min_length=1, max_length=140), AfterValidator(printable)]

# Only ASCII is allowed, so that no two different addresses look alike.
_DOMAIN_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL: Final = rf"^[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})+$"
EmailAddress = Annotated[str, Field(pattern=_EMAIL, max_length=254, json_schema_extra={"format": "email"})]
