"""Cursors: where a page ended, opaque to clients and signed.

A cursor is bound to its scope: the list, the ledger, the filters and the order that it was issued for. In any other scope it
is as invalid as a forged one, so a cursor can never carry a reader into data that the request itself could not ask for.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.errors import CursorInvalid

Key = list[Any]
"""The values of the fields that a list is ordered by, from the last item of a page."""
Scope = Mapping[str, Any]

_PURPOSE: Final = b"daybook cursor 1\n"
_MAC_BYTES: Final = 16


class Cursors:
    """Seals and opens cursors with one secret."""

    def __init__(self, secret: str) -> None:
        # Begun once: to make ready for a key is most of the work.
        self._begun = hmac.new(secret.encode(), _PURPOSE, hashlib.sha256)

    def seal(self, scope: Scope, key: Key) -> str:
        text = orjson.dumps(key)
        return base64.urlsafe_b64encode(self._mac(scope, text) + text).rstrip(b"=").decode()

    def open(self, scope: Scope, cursor: str) -> Key:
        """Raises:
        CursorInvalid: the cursor was not sealed with this secret for this scope.
        """
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
        except (binascii.Error, ValueError):
            raise CursorInvalid from None
        mac, text = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(scope, text)):
            raise CursorInvalid
        key: Key = orjson.loads(text)
        return key

    def _mac(self, scope: Scope, text: bytes) -> bytes:
        mac = self._begun.copy()
        mac.update(orjson.dumps(scope, option=orjson.OPT_SORT_KEYS) + b"\n" + text)
        return mac.digest()[:_MAC_BYTES]
