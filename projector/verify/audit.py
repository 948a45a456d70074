"""Checks the chain of audit records: it has no gaps, and each hash follows from the record and the hash before it.

A cut-off end leaves a sound chain. The published seals of the audit records find it.
"""

from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from projector.sealing.seal_file import read_file
from projector.verify.difference import DifferenceFound, require_equal
from projector.verify.trusted_seals import FoundSeal, TrustedSeals
from shared.identity.audit_records import FIRST_HASH, AuditRecord, read_after
from shared.proof.seals import AUDIT_SUFFIX, is_signed

_READ_MAX: Final = 1_000
_LOWEST_POSITION: Final = -(2**62)
"""A position before all others. Reading starts here, so that a forged row with a negative position is read too."""


class AuditChain(NamedTuple):
    """The end of a chain that was checked."""

    records: int
    hash: bytes
    seals: int = 0


async def verify_audit(connection: AsyncConnection, ledger_id: str, trusted: TrustedSeals) -> AuditChain:
    """Checks every audit record of a ledger and its published seals, and returns the end of the chain.

    Raises:
        DifferenceFound: a record is missing or was changed, or does not match a seal. The error names the first such position.
    """
    # Read the seals before the records: a seal that is published meanwhile may be about a later record.
    seals = _published(ledger_id, trusted)
    chain, after = AuditChain(0, FIRST_HASH), _LOWEST_POSITION
    while records := await read_after(connection, ledger_id, after, _READ_MAX):
        for record in records:
            chain = _verify_record(ledger_id, chain, record)
            if found := seals.get(record.position):
                require_equal(f"{found.where}, hash of that record", record.hash.hex(), found.seal.root.hex())
        after = chain.records
    if cut := [found for position, found in sorted(seals.items()) if position > chain.records]:
        raise DifferenceFound(f"position {chain.records + 1} of the audit records ({cut[-1].where})", "a record", None)
    return chain._replace(seals=len(seals))


def _published(ledger_id: str, trusted: TrustedSeals) -> dict[int, FoundSeal]:
    """Returns the published seals of the audit records by position.

    Raises:
        DifferenceFound: no known key has signed a seal.
    """
    seals: dict[int, FoundSeal] = {}
    for number, seal in read_file(trusted.file, ledger_id + AUDIT_SUFFIX, only_seals=trusted.is_own):
        if seal is None:
            continue  # the check of the seals reports damaged lines
        found = FoundSeal(f"seal of the audit records at position {seal.position} in {trusted.file}, line {number}", seal)
        if trusted.keys and not is_signed(seal, trusted.keys):
            raise DifferenceFound(f"{found.where}, signature", "one by a known key", f"key {seal.key_id}")
        seals[seal.position] = found
    return seals


def _verify_record(ledger_id: str, chain: AuditChain, record: AuditRecord) -> AuditChain:
    require_equal("the next position of the audit records", chain.records + 1, record.position)
    where = f"position {record.position} of the audit records ({record.act}), hash"
    try:
        computed = record.computed_hash(ledger_id, chain.hash)
    except (TypeError, ValueError) as error:
        raise DifferenceFound(where, "JSON that Daybook writes", str(error)) from error
    require_equal(where, computed.hex(), record.hash.hex())
    return AuditChain(record.position, record.hash)
