"""Turns the content of an import into commands, with ids and idempotency keys that depend on nothing but the content.

So a second run of the same files changes nothing, and longer files add what is new. The number of a row plays no part. Of rows
with equal content and without ids, the first, the second and so on are different transactions.
"""

import json
import uuid
from collections import Counter
from typing import Any, Final

from importers.book import UUID, Book, ImportedAccount, ImportedTransaction, ImportedUser
from importers.command_client import PostedCommand, Stages
from shared.currency_table import HISTORICAL

NAMESPACE: Final = uuid.UUID("0b5f7a3e-9d1c-5e43-8a2f-6265726b6131")
PATHS: Final = {"deposit": "/v1/deposits", "withdrawal": "/v1/withdrawals", "transfer": "/v1/transfers"}


def stages_of(book: Book) -> Stages:
    """Returns three stages of commands: one creates the users, one opens the accounts, and one moves money.

    The last stage has a chain for the transactions of each account, which keeps their order. Accounts that pay each other share
    a chain.
    """
    return [
        [[_create_user(book.source, user)] for user in book.users],
        [[_open_account(book.source, account)] for account in book.accounts],
        _chains(book),
    ]


def rehearsals_of(book: Book) -> list[PostedCommand]:
    """Returns the opening of one account in each historical currency. Ledgers refuse these currencies by default."""
    accounts = {account.currency: account for account in book.accounts if account.currency in HISTORICAL}
    return [_open_account(book.source, account) for account in accounts.values()]


def imported_id(source: str, kind: str, foreign_id: str) -> str:
    """Returns the id of something of another system: the same id if it is a UUID, or a UUID that is made from it."""
    if UUID.fullmatch(foreign_id):
        return foreign_id.lower()
    return str(uuid.uuid5(NAMESPACE, json.dumps([source, kind, foreign_id])))


def _create_user(source: str, user: ImportedUser) -> PostedCommand:
    body = {"id": imported_id(source, "user", user.id), "name": user.name, "email": user.email}
    return PostedCommand("/v1/users", _key_of_content(body), body, user.place)


def _open_account(source: str, account: ImportedAccount) -> PostedCommand:
    body = {
        "id": imported_id(source, "account", account.id),
        "owner_id": imported_id(source, "user", account.owner_id),
        "currency": account.currency,
        "overdraft_limit": account.overdraft_limit,
    }
    return PostedCommand("/v1/accounts", _key_of_content(body), body, account.place)


def _key_of_content(body: dict[str, Any]) -> str:
    """Returns a key for what need not be the same in later files: a user's name can change, and the user is left as it is."""
    return f"import:{uuid.uuid5(NAMESPACE, json.dumps(body))}"


def _chains(book: Book) -> list[list[PostedCommand]]:
    leaders: dict[str, str] = {}
    for transaction in book.transactions:
        if transaction.kind == "transfer":
            leaders[_leader(leaders, transaction.account_id)] = _leader(leaders, transaction.to_account_id)
    chains: dict[str, list[PostedCommand]] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for transaction in book.transactions:
        command = _move_money(book.source, transaction, seen)
        chains.setdefault(_leader(leaders, transaction.account_id), []).append(command)
    return [*chains.values()]


def _leader(leaders: dict[str, str], account_id: str) -> str:
    """Returns the account that stands for all accounts that are connected with this one by transfers."""
    path = [account_id]
    while leaders.get(path[-1], path[-1]) != path[-1]:
        path.append(leaders[path[-1]])
    for passed in path:
        leaders[passed] = path[-1]
    return path[-1]


def _move_money(source: str, transaction: ImportedTransaction, seen: Counter[tuple[Any, ...]]) -> PostedCommand:
    account_id = imported_id(source, "account", transaction.account_id)
    body: dict[str, Any] = {
        "id": _transaction_id(source, transaction, seen),
        "amount": transaction.amount,
        "currency": transaction.currency,
        "occurred_at": transaction.occurred_at,
    }
    if transaction.kind == "transfer":
        to_account_id = imported_id(source, "account", transaction.to_account_id)
        body |= {"from_account_id": account_id, "to_account_id": to_account_id}
    else:
        body["account_id"] = account_id
    if transaction.reference:
        body["reference"] = transaction.reference
    return PostedCommand(PATHS[transaction.kind], f"import:{body['id']}", body, transaction.place)


def _transaction_id(source: str, transaction: ImportedTransaction, seen: Counter[tuple[Any, ...]]) -> str:
    if transaction.id:
        return imported_id(source, "transaction", transaction.id)
    content = transaction._replace(place=None)  # type: ignore[arg-type] # where it stands is not a part of what it is
    seen[content] += 1
    return imported_id(source, "row", json.dumps([*content, seen[content]]))
