"""Reads the parts of a request that people configure: addresses and header values. Imports nothing that takes time."""

import re
from typing import Final
from urllib.parse import urlsplit

PORT_MAX: Final = 65_535

_URL: Final = re.compile(r"[!-~]+")


def read_http_url(text: str) -> str:
    """Returns the URL of an API without a slash at its end, so that a path can be added.

    Raises:
        ValueError: the text is not such a URL.
    """
    try:
        url = urlsplit(text)
        is_url = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port is None or 0 < url.port <= PORT_MAX)
    except ValueError:
        is_url = False
    if not is_url or url.query or url.fragment or not _URL.fullmatch(text):
        raise ValueError("must be a URL such as https://daybook.example.com, without a query")
    return text.rstrip("/")


def read_header_value(text: str) -> str:
    """Returns the text if it can stand in a header.

    Raises:
        ValueError: the text has a character that is not printable ASCII. The message does not repeat the text.
    """
    if not (text.isascii() and text.isprintable()):
        raise ValueError("must be printable ASCII")
    return text
