"""The money check of `daybook verify` accepts balances that follow from the amounts, and names every other one."""

from typing import get_args

import msgspec
import pytest

from projector.verify.difference import DifferenceFound
from projector.verify.money import AccountBooks
from shared.log.events import Event
from shared.log.money_events import FundsTransferred, FundsWithdrawn, MoneyEvent
from tests.harness.log import Book

HISTORY = Book(seed=11).history(600)


def entered(events: list[Event]) -> AccountBooks:
    books = AccountBooks()
    for position, event in enumerate(events, 1):
        books.enter(position, event)
    books.close()
    return books


def test_the_books_of_a_real_history_are_right() -> None:
    events = list(HISTORY)
    assert {type(event) for event in events} >= set(get_args(MoneyEvent))
    assert entered(events).accounts > 0


def test_only_events_that_move_money_have_postings_and_these_sum_to_zero() -> None:
    for event in Book(seed=12).history(400):
        postings = event.postings()
        assert bool(postings) == isinstance(event, MoneyEvent)
        for currency in {posting.currency for posting in postings}:
            assert sum(posting.amount for posting in postings if posting.currency == currency) == 0


def test_a_balance_that_does_not_follow_is_named() -> None:
    book = Book()
    user = book.create_user()
    accounts = [book.open_account(user.user_id) for _ in range(2)]
    ids = [account.account_id for account in accounts]
    events: list[Event] = [user, *accounts, book.deposit(ids[0], 100)]
    transfer: FundsTransferred = book.transfer(ids[0], ids[1], 10)
    wrong = msgspec.structs.replace(transfer, to_balance=11)
    with pytest.raises(DifferenceFound, match=rf"position 5 of the log, account {ids[1]}, balance: expected 10, found 11"):
        entered([*events, wrong])


def test_a_balance_below_the_limit_is_named() -> None:
    book = Book()
    user = book.create_user()
    account = book.open_account(user.user_id)
    overdrawn = FundsWithdrawn(transfer_id="t", account_id=account.account_id, amount=1, currency=account.currency, balance=-1)
    with pytest.raises(DifferenceFound, match="balance: expected '0 or more', found -1"):
        entered([user, account, overdrawn])
    raised, lowered = book.change_limit(account.account_id, 1), book.change_limit(account.account_id, 0)
    assert entered([user, account, raised, overdrawn]).accounts == 1
    with pytest.raises(DifferenceFound, match="balance: expected '0 or more', found -1"):
        entered([user, account, raised, lowered, overdrawn])
