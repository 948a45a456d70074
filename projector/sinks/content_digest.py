"""Computes a digest of a generation's content, so that two generations can be compared by one value."""

import hashlib

from projector.sinks.protocols import ContentReader
from shared.read_models.generations import Generation


async def digest(sink: ContentReader, generation: Generation) -> str:
    """Returns the sum of the SHA-256 hashes of all documents or keys, modulo 2^256, in hexadecimal.

    Generations with equal content have equal digests. A sum does not depend on the order, so the store can be read in its fastest
    order. The digest detects accidental changes, not deliberate ones: `daybook verify` finds those by folding the log again.
    """
    total = 0
    async for part in sink.content(generation):
        total += int.from_bytes(hashlib.sha256(part).digest(), "big")
    return f"{total % 2**256:064x}"
