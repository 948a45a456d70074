"""The deciders decide a right history again as it is, and refuse every forged one."""

from datetime import timedelta

import pytest

from command_api.domain.past_decisions import PastDecisions
from shared.errors import EventImpossible
from shared.log.events import Event
from shared.log.ledger_events import LedgerCreated
from shared.log.money_events import MoneyEvent, TransferReversed
from shared.timestamps import timestamp
from tests.harness.forgeries import FORGED_EVENTS, Scene
from tests.harness.log import NEW_YEAR, PERSON_KEY, Book

ONLY_VERSIONS_SHOW = "a transfer with the id of another"
"""The states of transfers are not kept, so the versions of their streams show this."""


def enter(events: list[Event]) -> None:
    past = PastDecisions(PERSON_KEY)
    reversed_ids = {event.reverses for event in events if isinstance(event, TransferReversed)}
    for position, event in enumerate(events, 1):
        if isinstance(event, MoneyEvent) and event.transfer_id in reversed_ids:
            past.recall(position, event)
    for position, event in enumerate(events, 1):
        past.decide_again(position, event, timestamp(NEW_YEAR + timedelta(seconds=position)))


@pytest.mark.parametrize("seed", range(5))
def test_a_history_that_was_decided_is_decided_again_as_it_is(seed: int) -> None:
    enter(list(Book(seed).history(1_000)))
    enter(Scene(seed).events)


def test_a_transfer_cannot_be_reversed_before_it_was_made() -> None:
    scene = Scene()
    paid = scene.pay(10)
    enter([*scene.events, paid, scene.book.reverse(paid, 10)])
    later = Scene()
    paid = later.pay(10)
    with pytest.raises(EventImpossible, match="not-found"):
        enter([*later.events, later.book.reverse(paid, 10), paid])


@pytest.mark.parametrize("name", sorted(FORGED_EVENTS.keys() - {ONLY_VERSIONS_SHOW}))
def test_an_event_that_no_command_makes_is_impossible(name: str) -> None:
    scene = Scene()
    forged = FORGED_EVENTS[name](scene)
    enter([*scene.events, *forged[:-1]])
    with pytest.raises(EventImpossible) as refused:
        enter([*scene.events, *forged])
    assert "Ada" not in str(refused.value)


@pytest.mark.parametrize(
    "forged",
    [
        LedgerCreated(name=""),
        LedgerCreated(name="a\nb"),
        LedgerCreated(name="Acme", time_zone="Europe/Nowhere"),
        LedgerCreated(name="Acme", time_zone="../../etc/passwd"),
        LedgerCreated(name="Acme", currencies=()),
        LedgerCreated(name="Acme", currencies=("EUR", "XXX")),
        LedgerCreated(name="Acme", currencies=("USD", "EUR")),
    ],
)
def test_a_ledger_that_no_command_makes_is_impossible(forged: LedgerCreated) -> None:
    enter([LedgerCreated(name="Acme", time_zone="Europe/Berlin", currencies=("EUR", "USD"))])
    with pytest.raises(EventImpossible):
        enter([forged])


def test_an_account_in_a_currency_that_its_ledger_does_not_allow_is_impossible() -> None:
    book = Book()
    ada = book.create_user()
    begun: list[Event] = [LedgerCreated(name="Acme", currencies=("EUR",)), ada, book.open_account(ada.user_id, "EUR")]
    enter(begun)
    with pytest.raises(EventImpossible, match="currency-not-allowed"):
        enter([*begun, book.open_account(ada.user_id, "JPY")])
