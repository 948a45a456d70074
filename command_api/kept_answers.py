"""Answers as their idempotency keys keep them: what they tell about a person stands sealed.

Such a body begins with `sealed:`, which no JSON does; then come the person's id and the body, with each of `MEMBERS` sealed. The
members are those of `answers.UserAnswer` that are personal. After an erasure the first answer is still given, without them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from command_api.user import UserState
from shared.event_store import Answer
from shared.person_keys import PersonKeys
from shared.personal_data import Keys, Place, open_sealed, personal_fields, seal

PREFIX: Final = b"sealed:"
MEMBERS: Final = tuple(personal_fields(UserState))

Key = tuple[str, str]
"""(principal, key)"""


def people(answers: Iterable[Answer], answered: Mapping[Key, str]) -> set[str]:
    """Whose keys it takes to seal these; `answered` says whom an answer is about."""
    if not answered:
        return set()
    about = [(person_id, orjson.loads(a.body)) for a in answers if (person_id := answered.get((a.principal, a.key)))]
    return {person_id for person_id, body in about if any(body.get(name) for name in MEMBERS)}


def sealed(ledger_id: str, answer: Answer, answered: Mapping[Key, str], keys: Keys) -> Answer:
    person_id = answered.get((answer.principal, answer.key))
    if person_id is None:
        return answer
    body = orjson.loads(answer.body)
    for name in MEMBERS:
        if body.get(name):
            body[name] = seal(body[name], keys[person_id], _place(ledger_id, answer, person_id, name))
    kept = PREFIX + orjson.dumps({"person_id": person_id, "body": body})
    return msgspec.structs.replace(answer, body=kept)


async def opened(
    connection: AsyncConnection, ledger_id: str, answers: Mapping[Key, Answer], person_keys: PersonKeys
) -> dict[Key, Answer]:
    """The answers as they were given, byte for byte, as far as the people whom they are about have not been erased."""
    kept = {key: orjson.loads(a.body[len(PREFIX) :]) for key, a in answers.items() if a.body.startswith(PREFIX)}
    if not kept:
        return dict(answers)
    keys = await person_keys.read(connection, ledger_id, {each["person_id"] for each in kept.values()})
    return dict(answers) | {key: _opened(ledger_id, answers[key], each, keys) for key, each in kept.items()}


def _opened(ledger_id: str, answer: Answer, kept: Mapping[str, Any], keys: Keys) -> Answer:
    person_id, body = kept["person_id"], kept["body"]
    for name in MEMBERS:
        if body.get(name):
            body[name] = open_sealed(body[name], keys.get(person_id), _place(ledger_id, answer, person_id, name))
    return msgspec.structs.replace(answer, body=orjson.dumps(body))


def _place(ledger_id: str, answer: Answer, person_id: str, name: str) -> Place:
    return "answer", ledger_id, answer.principal, answer.key, person_id, name
