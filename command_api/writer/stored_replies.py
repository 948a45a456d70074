"""Encrypts the personal members of replies before they are stored, and decrypts them when a request is repeated.

The stored body of such a reply starts with `sealed:`, which is not valid JSON. The person's id and the original body follow, with
each of `MEMBERS` encrypted with the person key. After an erasure, a repeated request still gets its reply, but these members have
the value `ERASED`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson

from command_api.writer.command_request import ReplyKey
from shared.log.stored_replies import StoredReply
from shared.privacy.encryption import EncryptionContext, KeysByPerson, decrypt, encrypt

PREFIX: Final = b"sealed:"
MEMBERS: Final = ("name", "email")
"""The names of the members with personal data in a reply about a user."""


def people(replies: Iterable[StoredReply], people_of_replies: Mapping[ReplyKey, str]) -> set[str]:
    """Returns the ids of the people whose keys are needed to encrypt these replies."""
    if not people_of_replies:
        return set()
    about = [
        (person_id, orjson.loads(reply.body))
        for reply in replies
        if (person_id := people_of_replies.get((reply.principal, reply.key)))
    ]
    return {person_id for person_id, body in about if any(body.get(name) for name in MEMBERS)}


def encrypted(ledger_id: str, reply: StoredReply, people_of_replies: Mapping[ReplyKey, str], keys: KeysByPerson) -> StoredReply:
    """Returns the reply in the form in which it is stored. A reply without personal data is returned unchanged."""
    person_id = people_of_replies.get((reply.principal, reply.key))
    if person_id is None:
        return reply
    body = orjson.loads(reply.body)
    for name in MEMBERS:
        if body.get(name):
            body[name] = encrypt(body[name], keys[person_id], _context(ledger_id, reply, person_id, name))
    return msgspec.structs.replace(reply, body=PREFIX + orjson.dumps({"person_id": person_id, "body": body}))


def people_in(replies: Iterable[StoredReply]) -> set[str]:
    """Returns the ids of the people whose keys are needed to decrypt these stored replies."""
    return {_stored_members(reply)["person_id"] for reply in replies if _is_encrypted(reply)}


def decrypted(ledger_id: str, reply: StoredReply, keys: KeysByPerson) -> StoredReply:
    """Returns the reply with the bytes of the first time, except that personal members are `ERASED` after an erasure."""
    if not _is_encrypted(reply):
        return reply
    stored = _stored_members(reply)
    person_id, body = stored["person_id"], stored["body"]
    for name in MEMBERS:
        if body.get(name):
            body[name] = decrypt(body[name], keys.get(person_id), _context(ledger_id, reply, person_id, name))
    return msgspec.structs.replace(reply, body=orjson.dumps(body))


def _is_encrypted(reply: StoredReply) -> bool:
    return reply.body.startswith(PREFIX)


def _stored_members(reply: StoredReply) -> dict[str, Any]:
    members: dict[str, Any] = orjson.loads(reply.body[len(PREFIX) :])
    return members


def _context(ledger_id: str, reply: StoredReply, person_id: str, name: str) -> EncryptionContext:
    return "answer", ledger_id, reply.principal, reply.key, person_id, name
