"""Asks the worker for operations on read models. The command API cannot do them itself: it reaches no read model in MongoDB.

A request is a row that the worker finds, and an audit record. Nothing is lost if the worker is not running or dies.
"""

import asyncio
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import NotFound
from shared.identity import audit_records
from shared.identity.audit_records import ActCaller
from shared.ids import new_id
from shared.log.heads import read_head
from shared.operation_errors import OperationUnderWay
from shared.optional_stores import configured_stores
from shared.read_models import operations
from shared.read_models.operations import ENDED, OperationKind, ReadModelOperation
from shared.read_models.shapes import OPTIONAL_READ_MODELS, READ_MODELS
from shared.settings import Settings

ANSWER_SECONDS: Final = 1.0
"""How long a request waits for the end of its operation. A worker does what is short, and refuses what is impossible, sooner."""
LOOK_SECONDS: Final = 0.1


class RequestedOperations:
    """The operations on the read models of all ledgers."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        optional = configured_stores(settings)
        self._names = {
            model.name for model in (*READ_MODELS, *OPTIONAL_READ_MODELS) if model.store in {"mongo", "redis", *optional}
        }

    async def ask(
        self, ledger_id: str, name: str, kind: OperationKind, reason: str, caller: ActCaller, event_position: int | None = None
    ) -> ReadModelOperation:
        """Asks for an operation. Returns it when it has ended, but after `ANSWER_SECONDS` as it is then.

        Raises:
            NotFound: there is no such ledger or read model.
            OperationUnderWay: another operation that excludes this one is under way.
        """
        if name not in self._names:
            raise NotFound
        operation_id = new_id()
        named = {} if event_position is None else {"event_position": event_position}
        act = {"operation_id": operation_id, "projection": name, "kind": kind, "reason": reason, **named}
        async with self._engine.begin() as connection:
            await read_head(connection, ledger_id)
            who = str(caller.principal)
            if not await operations.request(connection, ledger_id, operation_id, name, kind, event_position, reason, who):
                raise OperationUnderWay
            await audit_records.record(connection, ledger_id, "operation-requested", act, caller)
        return await self._soon(ledger_id, operation_id)

    async def _soon(self, ledger_id: str, operation_id: str) -> ReadModelOperation:
        now = asyncio.get_running_loop().time
        ends_at = now() + ANSWER_SECONDS
        while True:
            async with self._engine.connect() as connection:
                found = await operations.find(connection, ledger_id, operation_id)
            if found is None:
                raise NotFound
            if found.status in ENDED or now() >= ends_at:
                return found
            await asyncio.sleep(LOOK_SECONDS)
