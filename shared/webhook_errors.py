"""The errors about webhooks."""

from shared.errors import BadRequest, Rejection


class WebhookUrlRefused(BadRequest):
    """Daybook may not send to this URL."""

    code = "webhook-url-refused"


class TooManyWebhooks(Rejection):
    """The ledger has as many webhooks as it may have."""

    code = "too-many-webhooks"
    retryable = True
    message = "The ledger has as many webhooks as it may have: {limit}."
