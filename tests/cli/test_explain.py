"""Runs `daybook explain` as an operator does."""

import pytest

from shared.read_models.shapes import entry_id
from shared.settings import Settings
from tests.harness.documents import documents_of
from tests.harness.log import Book
from tests.harness.projecting import open_ledger
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services


async def test_the_facts_of_an_account_are_added_up_until_one_is_changed_or_lost(settings: Settings) -> None:
    book = Book()
    user = book.create_user()
    account = book.open_account(user.user_id)
    deposits = [book.deposit(account.account_id, 100), book.deposit(account.account_id, 30)]
    async with open_ledger(settings) as ledger:
        await ledger.append([user, account, *deposits, book.withdraw(account.account_id, 50)])
        await ledger.build("entries", "balances")

        async def explained(account_id: str) -> tuple[int, list[list[str]], str]:
            code, out, err = await daybook(settings, "explain", account_id).ended()
            return code, [line.split() for line in out.splitlines()], err

        code, lines, err = await explained(account.account_id.upper())
        assert (code, err) == (0, "")
        facts = [[line[0], *line[2:]] for line in lines[1:-1]]
        assert facts == [["3", "deposit", "100", "100"], ["4", "deposit", "30", "130"], ["5", "withdrawal", "-50", "80"]]
        assert " ".join(lines[-1]) == "3 facts add up to 80 EUR (minor units), which is the balance"
        assert (await explained(book.new_id()))[0] == 2
        await documents_of(ledger.stores.mongo, "entries").delete(entry_id(account.account_id, 4))
        code, _, err = await explained(account.account_id)
        assert code == 3
        assert err.splitlines() == [
            "position 5: the facts add up to 50, but this one tells 80",
            "the balance is 80, but the facts add up to 50",
        ]
