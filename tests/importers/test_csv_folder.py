"""Reads good and bad folders of CSV files without a server. All that is wrong is told, with file, row and column."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from command_api.domain.account import OpenAccount
from command_api.domain.transfer import Deposit, TransferFunds, Withdraw
from command_api.domain.user import NewUser
from importers.book import Book, in_major_units
from importers.commands import stages_of
from importers.csv_folder import read_folder
from importers.faults import FAULTS_MAX, Faults, ImportFileInvalid
from importers.mapping import CsvMapping, read_mapping

USERS: Final = "id,name,email\nu1,Ada,ada@example.com\nu2,Grace,grace@example.com\n"
ACCOUNTS: Final = "id,owner_id,currency,overdraft_limit\na1,u1,EUR,10.00\na2,u2,EUR,\ny1,u1,JPY,\n"
HEADER: Final = "id,account_id,type,amount,currency,date,to_account_id,reference\n"
TRANSACTIONS: Final = HEADER + (
    "t1,a1,deposit,100.5,EUR,2026-01-02,,Salary\n"
    "t2,a1,transfer,50.00,,2026-01-03T10:00:00+01:00,a2,\n"
    "t3,a2,withdrawal,0.01,EUR,2026-01-03 12:30,,\n"
    "t4,y1,deposit,500,JPY,2026-01-04,,\n"
)


def write(
    folder: Path, users: str = USERS, accounts: str = ACCOUNTS, transactions: str = TRANSACTIONS, encoding: str = "utf-8"
) -> None:
    for name, text in (("users", users), ("accounts", accounts), ("transactions", transactions)):
        (folder / f"{name}.csv").write_bytes(text.encode(encoding))


def read(folder: Path, mapping: CsvMapping | None = None, **options: Any) -> Book:
    faults = Faults()
    book = read_folder(folder, mapping or CsvMapping(), faults, lambda _: None, **options)
    faults.require_none()
    return book


def faults_of(folder: Path, mapping: CsvMapping | None = None) -> list[str]:
    with pytest.raises(ImportFileInvalid) as raised:
        read(folder, mapping)
    return str(raised.value).splitlines()


def bodies(book: Book) -> list[dict[str, Any]]:
    return [command.body for stage in stages_of(book) for chain in stage for command in chain]


def keys(book: Book) -> list[str]:
    return [command.idempotency_key for stage in stages_of(book) for chain in stage for command in chain]


def test_a_folder_is_read_exactly(tmp_path: Path) -> None:
    write(tmp_path)
    book = read(tmp_path)
    assert [(row.kind, row.amount, row.currency, row.occurred_at) for row in book.transactions] == [
        ("deposit", 10_050, "EUR", "2026-01-02T00:00:00.000000Z"),
        ("transfer", 5_000, "EUR", "2026-01-03T09:00:00.000000Z"),
        ("withdrawal", 1, "EUR", "2026-01-03T12:30:00.000000Z"),
        ("deposit", 500, "JPY", "2026-01-04T00:00:00.000000Z"),
    ]
    assert [account.overdraft_limit for account in book.accounts] == [1_000, 0, 0]
    assert book.posted() == {"EUR": 10_049, "JPY": 500}
    assert [in_major_units(units, currency) for currency, units in book.posted().items()] == ["100.49 EUR", "500 JPY"]
    assert len(set(keys(book))) == len(bodies(book)) == 9


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_with_a_mark_is_read_as_the_same_facts(tmp_path: Path, encoding: str) -> None:
    users = USERS.replace("Ada", "Ådá")
    write(tmp_path, users)
    plain = keys(read(tmp_path))
    write(tmp_path, users, encoding=encoding)
    assert keys(read(tmp_path)) == plain


def test_the_form_of_the_files_makes_no_difference_to_the_facts(tmp_path: Path) -> None:
    """Semicolons, decimal commas, German dates, latin-1, CR LF, quotes and empty lines: the ids and keys are the same."""
    users = USERS.replace("Ada", "Ådá")
    write(tmp_path, users)
    plain = keys(read(tmp_path))
    rows = [
        't1;a1;deposit;"100,50";EUR;02.01.2026 00:00;;Salary',
        "t2;a1;transfer;+50,00;;03.01.2026 09:00;a2;",
        "",
        "t3;a2;withdrawal;0,01;EUR;03.01.2026 12:30;;",
        "t4;y1;deposit;500;JPY;04.01.2026 00:00;;",
    ]
    transactions = "\r\n".join([HEADER.strip().replace(",", ";"), *rows])
    accounts = ACCOUNTS.replace(",", ";").replace("10.00", "10,00")
    write(tmp_path, users.replace(",", ";"), accounts, transactions, encoding="latin-1")
    mapping = CsvMapping(delimiter=";", encoding="latin-1", decimal_comma=True, dates="%d.%m.%Y %H:%M")
    assert keys(read(tmp_path, mapping)) == plain


def row(**changes: str) -> str:
    cells = {"id": "t1", "account_id": "a1", "type": "deposit", "amount": "5", "currency": "", "date": "2026-01-02"}
    cells |= {"to_account_id": "", "reference": ""} | changes
    return HEADER + ",".join(cells.values()) + "\n"


BAD_TRANSACTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "a negative deposit": (row(amount="-5"), "row 2, column «amount»: must not be negative"),
    "zero": (row(amount="0.00"), "row 2, column «amount»: must not be zero"),
    "an unknown type": (row(type="gift"), "row 2, column «type»: «gift» is not a type: use deposit, withdrawal, transfer"),
    "NaN": (row(amount="NaN"), "row 2, column «amount»: «NaN» is not an amount"),
    "Infinity": (row(amount="Infinity"), "row 2, column «amount»: «Infinity» is not an amount"),
    "an exponent": (row(amount="1e3"), "row 2, column «amount»: «1e3» is not an amount"),
    "other digits": (row(amount="١٢"), "row 2, column «amount»: «١٢» is not an amount"),
    "three decimals": (row(amount="1.234"), "row 2, column «amount»: «1.234» has 3 decimal places, and EUR has 2"),
    "decimals of yen": (row(account_id="y1", amount="1.5"), "column «amount»: «1.5» has 1 decimal places, and JPY has 0"),
    "a decimal comma": (row(amount='"1,50"'), "row 2, column «amount»: «1,50» has a decimal comma: use --decimal-comma"),
    "a comma too many": (row(amount="1,50"), "row 2: has 9 cells, and the header has 8"),
    "too much": (row(amount="90071992547409.92"), "row 2, column «amount»: «90071992547409.92» is larger than 9007199254740991"),
    "digits without end": (row(amount="9" * 5_000), "row 2, column «amount»: «" + "9" * 60 + "…» is not an amount"),
    "no amount": (row(amount=""), "row 2, column «amount»: is empty"),
    "a day that is none": (row(date="2026-02-30"), "row 2, column «date»: «2026-02-30» is not a date such as 2026-11-21"),
    "a date of another form": (row(date="1.2.2026"), "row 2, column «date»: «1.2.2026» is not a date"),
    "a year too early": (row(date="1899-12-31"), "row 2, column «date»: «1899-12-31» is not a date"),
    "an unknown account": (row(account_id="a9"), "row 2, column «account_id»: accounts.csv has no account «a9»"),
    "another currency": (row(currency="USD"), "row 2, column «currency»: is USD, and account «a1» is kept in EUR"),
    "a currency that is none": (row(currency="EURO"), "row 2, column «currency»: «EURO» is not an ISO 4217 code"),
    "a receiver of a deposit": (row(to_account_id="a2"), "row 2, column «to_account_id»: must be empty for a deposit"),
    "no receiver": (row(type="transfer"), "row 2, column «to_account_id»: is empty: a transfer needs"),
    "itself": (row(type="transfer", to_account_id="a1"), "row 2, column «to_account_id»: an account cannot pay itself"),
    "yen for euros": (row(type="transfer", to_account_id="y1"), "column «to_account_id»: account «y1» is kept in JPY"),
    "a reference with a bell": (row(reference="a\x07b"), "row 2, column «reference»: «a\x07b»: text must not contain control"),
    "a reference that is too long": (
        row(reference="x" * 141),
        "column «reference»: «" + "x" * 60 + "…»: string should have at most",
    ),
    "an id twice": (row() + row().splitlines()[1] + "\n", "row 3, column «id»: «t1» is also the id of row 2"),
    "too little money": (row(type="withdrawal", amount="10.01"), "would be -10.01 EUR, and the overdraft limit is 10.00 EUR"),
    "a missing column": (
        "id,account_id,date\n",
        "row 1, column «amount»: the column is missing; the file has «id»,",
    ),
    "another delimiter": (row().replace(",", ";"), "row 1, column «amount»: the column is missing; the file has «id;account_id;"),
    "a column twice": (HEADER.replace("reference", "id"), "row 1, column «id»: the column is named twice"),
    "an empty file": ("", "transactions.csv, row 1: the file is empty: its first row must name the columns"),
    "an open quote": (HEADER + '"t1,a1\n', "row 2: is not CSV: a quote is not closed"),
    "a quote inside": (HEADER + '"t"1,a1\n', "row 2: is not CSV: ',' expected after '\"'"),
    "a NUL character": (row(reference="a\0b"), "row 2: has a NUL character: if the file is UTF-16"),
}


@pytest.mark.parametrize("mistake", BAD_TRANSACTIONS)
def test_a_bad_row_is_told_with_its_place_and_reason(tmp_path: Path, mistake: str) -> None:
    transactions, expected = BAD_TRANSACTIONS[mistake]
    write(tmp_path, transactions=transactions)
    first, *lines = faults_of(tmp_path)
    assert "so nothing was imported" in first
    assert any(line.startswith("transactions.csv") and expected in line for line in lines), lines


BAD_OTHERS: Final[Mapping[str, tuple[dict[str, str], str]]] = {
    "a user without a name": (
        {"users": "id,name,email\nu1,,ada@example.com\nu2,B,b@x.org\n"},
        "users.csv, row 2, column «name»: is empty",
    ),
    "an address that is none": (
        {"users": USERS.replace("ada@", "ada")},
        "row 2, column «email»: «adaexample.com»: is not an",
    ),
    "an address twice": ({"users": USERS.replace("grace@", "ADA@")}, "row 3, column «email»: «ADA@example.com» is also in row 2"),
    "a user twice": ({"users": USERS.replace("u2", "u1")}, "users.csv, row 3, column «id»: «u1» is also the id of row 2"),
    "an owner that is none": (
        {"accounts": ACCOUNTS.replace("a2,u2", "a2,u9")},
        "row 3, column «owner_id»: users.csv has no user",
    ),
    "a negative limit": ({"accounts": ACCOUNTS.replace("10.00", "-1")}, "row 2, column «overdraft_limit»: must not be negative"),
    "a currency that is none": (
        {"accounts": ACCOUNTS.replace("JPY", "XXX")},
        "accounts.csv, row 4, column «currency»: «XXX» is not",
    ),
}


@pytest.mark.parametrize("mistake", BAD_OTHERS)
def test_a_bad_user_or_account_is_told_too(tmp_path: Path, mistake: str) -> None:
    files, expected = BAD_OTHERS[mistake]
    write(tmp_path, **files)
    assert any(expected in line for line in faults_of(tmp_path)[1:]), faults_of(tmp_path)


def test_all_faults_are_told_at_once_and_the_first_fifty_one_by_one(tmp_path: Path) -> None:
    bad = HEADER + "".join(f"t{number},a1,deposit,NaN,,never,,\n" for number in range(40))
    write(tmp_path, USERS.replace("Grace", ""), transactions=bad)
    lines = faults_of(tmp_path)
    assert lines[0] == "81 faults in the files, so nothing was imported"
    assert lines[1] == "users.csv, row 3, column «name»: is empty"
    assert len(lines) == FAULTS_MAX + 2
    assert lines[-1] == "… and 31 more"


def test_missing_and_wrongly_encoded_files_are_told_for_each_file(tmp_path: Path) -> None:
    (tmp_path / "accounts.csv").write_bytes(ACCOUNTS.replace("a2", "å2").encode("latin-1"))
    (tmp_path / "transactions.csv").mkdir()
    missing, accounts, folder = faults_of(tmp_path)[1:]
    assert missing.startswith("users.csv: there is no such file in ")
    assert accounts == "accounts.csv, row 3: is not utf-8: use --encoding, for example latin-1"
    assert folder == "transactions.csv: is not a file"
    write(tmp_path / "transactions.csv", encoding="utf-16-le")
    assert (
        "row 1: has a NUL character: if the file is UTF-16, use --encoding utf-16-le"
        in faults_of(tmp_path / "transactions.csv")[1]
    )


# ── running again ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_rows_without_ids_are_different_facts_and_a_longer_file_adds_only_what_is_new(tmp_path: Path) -> None:
    """A new row between old ones, new users and another order change no id of an old row."""
    header = "account_id,amount,date\n"
    coffee = "a1,-3.50,2026-01-02\n"
    write(tmp_path, transactions=header + "a1,100,2026-01-01\n" + coffee + coffee)
    before = read(tmp_path)
    assert [transaction.kind for transaction in before.transactions] == ["deposit", "withdrawal", "withdrawal"]
    assert len(set(keys(before))) == 8, "two coffees are two facts"
    longer = header + coffee + coffee + "a1,7,2026-01-02\n" + coffee + "a1,100,2026-01-01\n"
    write(tmp_path, USERS + "u3,Joan,joan@example.com\n", transactions=longer)
    after = read(tmp_path)
    assert set(keys(before)) < set(keys(after))
    assert len(keys(after)) == len(keys(before)) + 3, "a user, the third coffee and the deposit of 7"


def test_files_whose_newest_row_stands_first_are_imported_in_the_order_of_time(tmp_path: Path) -> None:
    rows = ["a2,-1,2026-01-02", "a2,-4,2026-01-02", "a2,5,2026-01-02", "a1,1,2026-01-01"]
    write(tmp_path, transactions="account_id,amount,date\n" + "\n".join(rows))
    assert [transaction.amount for transaction in read(tmp_path).transactions] == [100, 500, 400, 100]


def test_a_folder_that_continues_earlier_files_may_spend_what_they_brought(tmp_path: Path) -> None:
    write(tmp_path, transactions=row(type="withdrawal", amount="500"))
    assert "overdraft limit is 10.00 EUR (--continues" in faults_of(tmp_path)[1]
    assert len(read(tmp_path, continues=True).transactions) == 1


def test_accounts_that_pay_each_other_share_a_chain_and_others_do_not_wait(tmp_path: Path) -> None:
    write(tmp_path)
    chains = stages_of(read(tmp_path))[2]
    assert [[command.path for command in chain] for chain in chains] == [
        ["/v1/deposits", "/v1/transfers", "/v1/withdrawals"],
        ["/v1/deposits"],
    ]


# ── mappings ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MAPPING: Final = """
source = "old-bank"
delimiter = ";"
dates = "%d/%m/%Y"
[users]
file = "people.txt"
columns = { id = "{No}", name = "{First} {Last}", email = "{No}@old.example" }
[accounts]
file = "people.txt"
only = { Kind = "giro" }
columns = { id = "{No}", owner_id = "{No}", currency = "EUR", overdraft_limit = "1000" }
[transactions]
file = "moves.txt"
columns = { account_id = "{No}", type = "{D/C}", amount = "{Sum}", date = "{Day}", reference = "{Text}" }
values.type = { C = "deposit", D = "withdrawal" }
"""


def test_a_mapping_reads_the_files_of_another_system(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAPPING)
    (tmp_path / "people.txt").write_text("No;First;Last;Kind\n7;Ada;Byron;giro\n8;Bo;Li;loan\n")
    (tmp_path / "moves.txt").write_text("No;D/C;Sum;Day;Text;More\n7;C;12.5;31/12/2025;Pay;x\n7;D;800;01/01/2026;;x\n")
    book = read(tmp_path, read_mapping(tmp_path / "map.toml"))
    assert [user.name for user in book.users] == ["Ada Byron", "Bo Li"]
    assert [account.id for account in book.accounts] == ["7"]
    assert [(one.kind, one.amount, one.reference) for one in book.transactions] == [
        ("deposit", 1_250, "Pay"),
        ("withdrawal", 80_000, ""),
    ]
    (tmp_path / "moves.txt").write_text("No;D/C;Sum;Day;Text\n7;X;12.5;31/12/2025;Pay\n")
    assert "moves.txt, row 2, column «D/C»: «X» is not a type" in faults_of(tmp_path, read_mapping(tmp_path / "map.toml"))[1]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("[users", "Expected ']'"),
        ("colour = 1", "unknown field `colour`"),
        ("delimiter = 5", "Expected `str`, got `int`"),
        ("delimiter = ';;'", "«;;» is not a delimiter"),
        ("encoding = 'rot13'", "«rot13» is not an encoding"),
        ("encoding = 'moon'", "«moon» is not an encoding"),
        ("dates = '%d.%m.'", "«%d.%m.» is not a form of dates"),
        ("dates = '%d%d%q'", "is not a form of dates"),
        ("source = ''", "«» is not a source"),
        ("[users]\nfile = 'u'\ncolumns = { nme = 'x' }", "users has no column «nme», but: id, name, email"),
        ("[users]", "missing required field `file`"),
        ("a = " + "[" * 5_000, "map.toml"),
    ],
)
def test_a_mapping_that_is_none_is_refused_with_its_reason(tmp_path: Path, mapping: str, expected: str) -> None:
    (tmp_path / "map.toml").write_text(mapping)
    with pytest.raises(ImportFileInvalid) as raised:
        read_mapping(tmp_path / "map.toml")
    assert expected in str(raised.value)


# ── random files ─────────────────────────────────────────────────────────────────────────────────────────────────────

ODD: Final[tuple[bytes, ...]] = (
    *(
        b"",
        b",",
        b";",
        b'"',
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"-",
        b"NaN",
        b"1e999",
        b"0",
        b"\xc2\xa0",
    ),
    *("\u202e".encode(), "١".encode(), b"9" * 40, b"a1", b"u1", b"transfer", b"2026-01-02", b"9999-99-99", b"x" * 500, b"{}"),
)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Changes a file in a few places: cells, separators, bytes and the order of rows."""
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        place, odd = chance.randrange(len(content) + 1), chance.choice(ODD)
        how = chance.randrange(4)
        if how == 0:
            content = content[:place] + odd + content[place + chance.choice((0, 1, 5)) :]
        elif how == 1:
            lines = content.split(b"\n")
            content = b"\n".join(chance.sample(lines, len(lines)))
        elif how == 2:
            content = content.replace(chance.choice((b"a1", b"u1", b"EUR", b"deposit", b"5")), odd, 1)
        else:
            content += content[content.find(b"\n") + 1 :]
    return content


@pytest.mark.proof(400, 100_000)
def test_random_files_are_read_or_refused_with_a_reason_and_nothing_else_happens(tmp_path: Path, repetitions: int) -> None:
    """The command models of the API accept every value that the importer reads."""
    good, reasons = 0, list[str]()
    for seed in range(repetitions):
        chance = random.Random(seed)
        for name, text in (("users", USERS), ("accounts", ACCOUNTS), ("transactions", TRANSACTIONS)):
            (tmp_path / f"{name}.csv").write_bytes(damaged(text.encode(), chance))
        mapping = CsvMapping(decimal_comma=chance.random() < 0.2, encoding=chance.choice((None, None, "latin-1", "utf-16-le")))
        try:
            book = read(tmp_path, mapping)
        except ImportFileInvalid as refused:
            reasons += [str(refused)]
            continue
        good += 1
        assert all_valid(book), seed
        assert len({body["id"] for body in bodies(book)}) == len(bodies(book)), seed
    assert 0 < good < repetitions
    assert not [reason for reason in reasons if ".csv" not in reason]


def all_valid(book: Book) -> bool:
    """Validates each body as the command API does."""
    kinds: dict[str, Any] = {
        "/v1/users": NewUser,
        "/v1/accounts": OpenAccount,
        "/v1/deposits": Deposit,
        "/v1/withdrawals": Withdraw,
        "/v1/transfers": TransferFunds,
    }
    for command in (command for stage in stages_of(book) for chain in stage for command in chain):
        kinds[command.path].model_validate(command.body)
    return True
