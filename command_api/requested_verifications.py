"""Asks the worker to verify ledgers. A request is a row that the worker finds, and an audit record."""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import NotFound
from shared.identity import audit_records
from shared.identity.audit_records import ActCaller
from shared.ids import new_id
from shared.log.heads import read_head
from shared.operation_errors import OperationUnderWay
from shared.proof import verifications
from shared.proof.verifications import VerificationStatus

UNDER_WAY: Final = "Another verification of this ledger is under way."


class RequestedVerifications:
    """The verifications of all ledgers."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ask(self, ledger_id: str, reason: str, caller: ActCaller) -> str:
        """Asks for a verification. Returns its id.

        Raises:
            NotFound: there is no such ledger.
            OperationUnderWay: another verification of the ledger has no end yet.
        """
        verification_id = new_id()
        async with self._engine.begin() as connection:
            await read_head(connection, ledger_id)
            if not await verifications.request(connection, ledger_id, verification_id, reason, str(caller.principal)):
                raise OperationUnderWay(UNDER_WAY)
            act = {"verification_id": verification_id, "reason": reason}
            await audit_records.record(connection, ledger_id, "verification-requested", act, caller)
        return verification_id

    async def cancel(self, ledger_id: str, verification_id: str, caller: ActCaller) -> VerificationStatus:
        """Cancels a verification, unless it has ended. Returns its status.

        Raises:
            NotFound: the ledger has no such verification.
        """
        async with self._engine.begin() as connection:
            if await verifications.cancel(connection, ledger_id, verification_id):
                act = {"verification_id": verification_id}
                await audit_records.record(connection, ledger_id, "verification-cancelled", act, caller)
            found = await verifications.find(connection, ledger_id, verification_id)
        if found is None:
            raise NotFound
        return found.status
