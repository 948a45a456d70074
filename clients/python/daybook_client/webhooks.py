"""Checks that a delivery of a webhook comes from Daybook, as Standard Webhooks defines: https://www.standardwebhooks.com."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 # begins every secret
AGE_SECONDS_MAX: Final = 300


class SignatureInvalid(Exception):
    """The delivery has no signature by the webhook's secret, or it was sent too long ago. Answer it with 400."""


def verify_delivery(
    body: bytes, headers: Mapping[str, str], *secrets: str, age_seconds_max: float = AGE_SECONDS_MAX, now: float | None = None
) -> Any:
    """Returns the JSON of a delivery. `body` is the body as it arrived, byte for byte.

    Give the old and the new secret while you rotate them. Deliveries can arrive twice: `webhook-id` is the same then.

    Raises:
        SignatureInvalid: the delivery does not come from this webhook, was changed, or is older than `age_seconds_max`.
    """
    named = {name.lower(): value for name, value in headers.items()}
    delivery_id, sent_at, signatures = (named.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not sent_at.isdecimal() or abs((time.time() if now is None else now) - int(sent_at)) > age_seconds_max:
        raise SignatureInvalid("webhook-timestamp is missing, too old, or in the future")
    signed = f"{delivery_id}.{sent_at}.".encode() + body
    sent = [signature.removeprefix("v1,") for signature in signatures.split(" ") if signature.startswith("v1,")]
    if not any(_is_signed(signed, secret, sent) for secret in secrets):
        raise SignatureInvalid("webhook-signature has no signature by this secret")
    return json.loads(body)


def _is_signed(signed: bytes, secret: str, signatures: Iterable[str]) -> bool:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a secret is whsec_ and Base64") from None
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in signatures)
