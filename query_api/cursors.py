"""Cursors: signed texts that say where the next page of a list begins.

A cursor is bound to the list, the ledger, the customer, the filters and the order that it was made for. In any other request, it
is as invalid as a forged cursor. So a cursor gives no access to data that the request could not ask for without it.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.errors import CursorInvalid

CursorKey = list[Any]
"""The values of the fields that a list is ordered by, from the last item of a page."""
CursorBinding = Mapping[str, Any]
"""The parts of a request that a cursor is bound to: list, ledger, customer, filters and order."""

_PURPOSE: Final = b"daybook cursor 1\n"
_MAC_BYTES: Final = 16


class Cursors:
    """Signs cursors with one secret, and verifies cursors of this and of further secrets."""

    def __init__(self, secret: str, *still_accepted: str) -> None:
        # Making an HMAC object for a key takes longer than signing a cursor with it, so the object is made once and copied.
        self._prepared = [hmac.new(each.encode(), _PURPOSE, hashlib.sha256) for each in (secret, *still_accepted)]

    def sign(self, binding: CursorBinding, key: CursorKey) -> str:
        """Returns the cursor of the page that begins after `key`."""
        text = orjson.dumps(key)
        return base64.urlsafe_b64encode(_mac(self._prepared[0], binding, text) + text).rstrip(b"=").decode()

    def verify(self, binding: CursorBinding, cursor: str) -> CursorKey:
        """Checks the signature of a cursor. Returns the key in the cursor, after which the page begins.

        Raises:
            CursorInvalid: the cursor was signed with none of the secrets for this binding.
        """
        try:
            signed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
        except (binascii.Error, ValueError):
            raise CursorInvalid from None
        mac, text = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(prepared, binding, text)) for prepared in self._prepared):
            raise CursorInvalid
        key: CursorKey = orjson.loads(text)
        return key


def _mac(prepared: "hmac.HMAC", binding: CursorBinding, text: bytes) -> bytes:
    mac = prepared.copy()
    mac.update(orjson.dumps(binding, option=orjson.OPT_SORT_KEYS) + b"\n" + text)
    return mac.digest()[:_MAC_BYTES]
