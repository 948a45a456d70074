"""Builds the ids of streams. The `streams` method of each event uses these functions."""

from typing import Final

LEDGER_STREAM: Final = "ledger"
"""The stream of the events about the ledger itself. A ledger has one such stream, and every decision depends on it."""


def user_stream(user_id: str) -> str:
    return f"user-{user_id}"


def email_stream(email_hash: str) -> str:
    """Returns the id of an e-mail address's stream, which records the user who has the address.

    The versions of a stream are unique, so two users can never take the same address.
    """
    return f"email-{email_hash}"


def account_stream(account_id: str) -> str:
    return f"account-{account_id}"


def transfer_stream(transfer_id: str) -> str:
    """Returns the id of a transfer's stream, which makes the transfer's id unique forever.

    The id stays unique even if the client has forgotten its idempotency key. Every event of this stream also belongs to the
    streams of the transfer's accounts.
    """
    return f"transfer-{transfer_id}"


def projection_stream(projection: str) -> str:
    """Returns the id of the stream that records the decisions of operators about one read model of the ledger."""
    return f"projection-{projection}"


def hold_stream(hold_id: str) -> str:
    return f"hold-{hold_id}"


def schedule_stream(schedule_id: str) -> str:
    return f"schedule-{schedule_id}"


DAYS_STREAM = "days"
"""The id of the stream that records which business days of the ledger are closed, in the order of the days."""
