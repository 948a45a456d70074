"""Signs deliveries as Standard Webhooks defines: https://www.standardwebhooks.com. Encrypts the secrets that are stored.

A secret is `whsec_` and Base64 of 32 random bytes. A master key wraps it in PostgreSQL, as it wraps person keys.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from shared.errors import LogDamaged, MasterKeyUnknown
from shared.privacy.encryption import DecryptionFailed
from shared.privacy.master_keys import master_key_id, unwrap, wrap
from shared.setting_values import read_master_keys
from shared.settings import Settings

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 # begins every secret
SECRET_BYTES: Final = 32


def new_secret() -> bytes:
    return os.urandom(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """Returns a secret as its receiver gets it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(secrets: Sequence[bytes], delivery_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """Returns the headers of a delivery, with one signature for each secret that is valid now."""
    timestamp = str(int(sent_at.timestamp()))
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


class WebhookSecrets:
    """Wraps the secrets of webhooks, so that a copy of PostgreSQL alone signs nothing."""

    def __init__(self, settings: Settings) -> None:
        master_keys = read_master_keys(settings.master_keys.get_secret_value())
        self._master_keys = {master_key_id(key): key for key in master_keys}
        self._newest = master_keys[0]
        self.newest_id: Final = master_key_id(self._newest)

    def wrapped(self, ledger_id: str, webhook_id: str, secret: bytes) -> bytes:
        """Returns a secret in the form that is stored, wrapped by the master key `newest_id`."""
        return wrap(secret, self._newest, _context(ledger_id, webhook_id))

    def unwrapped(self, ledger_id: str, webhook_id: str, wrapped: bytes, key_id: str) -> bytes:
        """Returns a stored secret.

        Raises:
            MasterKeyUnknown: it is wrapped by a master key that the settings do not contain.
            LogDamaged: it was changed, or belongs to another webhook.
        """
        master_key = self._master_keys.get(key_id)
        if master_key is None:
            raise MasterKeyUnknown(
                f"secrets of webhooks are wrapped by master key {key_id}, which DAYBOOK_MASTER_KEYS does not name"
            )
        try:
            return unwrap(wrapped, master_key, _context(ledger_id, webhook_id))
        except DecryptionFailed as broken:
            raise LogDamaged(f"ledger {ledger_id!r}, webhook {webhook_id}: {broken}") from broken


def _context(ledger_id: str, webhook_id: str) -> tuple[str, ...]:
    return "webhook-secret", ledger_id, webhook_id
