"""Wraps the secrets of webhooks with the newest master key. The secrets themselves do not change."""

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.webhooks import store
from shared.webhooks.signatures import WebhookSecrets

WEBHOOKS_PER_TRANSACTION_MAX = 100


async def rewrap_secrets(owner: AsyncEngine, secrets: WebhookSecrets) -> int:
    """Wraps all secrets of older master keys with the newest one. Returns the number of webhooks.

    Raises:
        MasterKeyUnknown: a secret is wrapped by a master key that the settings do not contain.
    """
    rewrapped = 0
    while count := await _rewrap_some(owner, secrets):
        rewrapped += count
    return rewrapped


async def _rewrap_some(owner: AsyncEngine, secrets: WebhookSecrets) -> int:
    async with owner.begin() as connection:
        found = await store.read_old_secrets(connection, secrets.newest_id, WEBHOOKS_PER_TRANSACTION_MAX)
        for place, stored in found:
            wrapped = [(stored.secret, stored.master_key_id), (stored.old_secret, stored.old_master_key_id)]
            secret, old_secret = (_wrapped_again(secrets, place, *each) for each in wrapped)
            await store.replace_secrets(connection, place, secret or b"", old_secret, secrets.newest_id)
    return len(found)


def _wrapped_again(secrets: WebhookSecrets, place: store.WebhookPlace, wrapped: bytes | None, key_id: str | None) -> bytes | None:
    if wrapped is None or key_id is None:
        return None
    secret = secrets.unwrapped(place.ledger_id, place.webhook_id, wrapped, key_id)
    return secrets.wrapped(place.ledger_id, place.webhook_id, secret)
