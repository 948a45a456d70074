"""The command that changes the metadata of an account: key and value pairs that queries find it by."""

from pydantic import ConfigDict

from command_api.domain.account import AccountCommand, digest_of, require_account, require_not_closed
from command_api.domain.command import States
from command_api.domain.command_fields import Metadata, StrictFields
from shared.log.account_events import AccountMetadataChanged
from shared.log.events import Event


class NewMetadata(StrictFields):
    """All metadata of an account. null, and no pairs, remove them."""

    model_config = ConfigDict(json_schema_extra={"example": {"metadata": {"iban": "DE02120300000000202051"}}})

    metadata: Metadata | None


class ChangeAccountMetadata(AccountCommand):
    """Replaces the metadata of an account, also if it is frozen. Rejections, in this order: not-found, account-closed."""

    metadata: Metadata | None

    def decide(self, states: States) -> list[Event]:
        account = require_account(states, self.account_id)
        require_not_closed(account)
        if digest_of(self.metadata) == account.metadata_digest:
            return []
        return [AccountMetadataChanged(account_id=self.account_id, currency=account.currency, metadata=self.metadata or None)]
