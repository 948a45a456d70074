"""Wraps person keys with master keys, so that a copy of PostgreSQL alone decrypts nothing.

The settings contain the master keys; Daybook never stores them. This module does no I/O.
"""

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.privacy.encryption import NONCE_BYTES, DecryptionFailed, EncryptionContext, associated_data


def master_key_id(master_key: bytes) -> str:
    """Returns the id of a master key, which does not reveal the key."""
    return hashlib.sha256(b"daybook master key\x00" + master_key).hexdigest()[:16]


def wrap(key: bytes, master_key: bytes, context: EncryptionContext) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(master_key).encrypt(nonce, key, associated_data(context))


def unwrap(wrapped: bytes, master_key: bytes, context: EncryptionContext) -> bytes:
    """Returns the key that `wrap` has wrapped in this context.

    Raises:
        DecryptionFailed: the key was wrapped in another context or with another master key, or was changed.
    """
    try:
        return AESGCM(master_key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], associated_data(context))
    except (ValueError, InvalidTag):
        raise DecryptionFailed(f"the key of {context[-1]} was changed, or was wrapped for another place") from None
