"""Checks the person keys. All other checks would take a lost key for an erasure, so this check looks for lost keys."""

from itertools import islice
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from projector.verify.difference import DifferenceFound
from projector.verify.money import FoldedLog
from shared.log.read import read_stream
from shared.log.streams import user_stream
from shared.log.user_events import UserCreated, UserErased
from shared.privacy.person_keys import ADDRESSES, PersonKeys

KEYS_READ_MAX: Final = 1_000


async def verify_people(connection: AsyncConnection, ledger_id: str, folded: FoldedLog, person_keys: PersonKeys) -> None:
    """Checks that every person has a key that can be unwrapped, except the erased ones, and that nobody else has one.

    With users, the ledger needs the key for hashes of addresses too: without it, an address could be taken twice.

    Raises:
        DifferenceFound: a key is missing or belongs to nobody. The error names the person.
        LogDamaged: a key was changed, or belongs to another person.
    """
    found = await person_keys.read_ids(connection, ledger_id)
    if kept := folded.erased & found:
        raise DifferenceFound(f"key of person {min(kept)}", "none after the erasure", "one")
    for person_id in sorted(folded.people ^ found):
        # The person may have been created or erased since the log was read.
        type_name = UserErased.__name__ if person_id in folded.people else UserCreated.__name__
        if not await read_stream(connection, ledger_id, user_stream(person_id), type_name=type_name):
            raise DifferenceFound(f"key of person {person_id}", *(("one", None) if person_id in folded.people else (None, "one")))
    if folded.people and not await person_keys.read(connection, ledger_id, [ADDRESSES]):
        raise DifferenceFound("key for hashes of e-mail addresses", "one", None)
    rest = iter(sorted(found))
    while some := list(islice(rest, KEYS_READ_MAX)):
        await person_keys.read(connection, ledger_id, some)
