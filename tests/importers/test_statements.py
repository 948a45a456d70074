"""Reads bank statements in OFX, MT940 and camt.053 without a server: the same facts in each format, and what is wrong in them."""

import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from importers.book import Book
from importers.commands import stages_of
from importers.faults import Faults, ImportFileInvalid
from importers.statements import StatementOptions, book_of

OWNER: Final = "0198c5a0-0000-7000-8000-00000000ada0"
ACCOUNT: Final = "0198c5a0-0000-7000-8000-0000000000e1"
OPEN: Final = StatementOptions({}, OWNER, opening_balance=True, continues=False)

MT940: Final = """:20:STARTUMS
:25:10020030/1234567
:28C:1/1
:60F:C260101EUR1000,00
:61:2601020102D12,34NMSCNONREF
:86:Coffee
:61:2601020102D12,34NMSCNONREF
:86:Coffee
:61:2601030103C5,NTRFREF2
:86:Interest
:62F:C260103EUR980,32
-
"""
OFX: Final = """OFXHEADER:100
DATA:OFXSGML
VERSION:102
SECURITY:NONE
ENCODING:USASCII
CHARSET:1252
COMPRESSION:NONE
OLDFILEUID:NONE
NEWFILEUID:NONE

<OFX><SIGNONMSGSRSV1><SONRS><STATUS><CODE>0<SEVERITY>INFO</STATUS><DTSERVER>20260104<LANGUAGE>ENG</SONRS></SIGNONMSGSRSV1>
<BANKMSGSRSV1><STMTTRNRS><TRNUID>1<STATUS><CODE>0<SEVERITY>INFO</STATUS><STMTRS><CURDEF>EUR
<BANKACCTFROM><BANKID>10020030<ACCTID>1234567<ACCTTYPE>CHECKING</BANKACCTFROM>
<BANKTRANLIST><DTSTART>20260101<DTEND>20260103
<STMTTRN><TRNTYPE>CREDIT<DTPOSTED>20260101<TRNAMT>1000.00<FITID>1<NAME>Salary</STMTTRN>
<STMTTRN><TRNTYPE>DEBIT<DTPOSTED>20260102<TRNAMT>-12.34<FITID>2<NAME>Coffee</STMTTRN>
<STMTTRN><TRNTYPE>DEBIT<DTPOSTED>20260102<TRNAMT>-12.34<FITID>3<NAME>Coffee</STMTTRN>
<STMTTRN><TRNTYPE>CREDIT<DTPOSTED>20260103<TRNAMT>5.00<FITID>4<NAME>Interest</STMTTRN>
</BANKTRANLIST><LEDGERBAL><BALAMT>980.32<DTASOF>20260103</LEDGERBAL></STMTRS></STMTTRNRS></BANKMSGSRSV1></OFX>
"""


def entry(amount: str, direction: str, day: str, text: str, status: str = "BOOK") -> str:
    return (
        f'<Ntry><Amt Ccy="EUR">{amount}</Amt><CdtDbtInd>{direction}</CdtDbtInd><Sts><Cd>{status}</Cd></Sts>'
        f"<BookgDt><Dt>{day}</Dt></BookgDt><NtryDtls><TxDtls><RmtInf><Ustrd>{text}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>"
    )


def total(code: str, amount: str, day: str) -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy='EUR'>{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd>"
        f"<Dt><Dt>{day}</Dt></Dt></Bal>"
    )


CAMT: Final = (
    '<?xml version="1.0" encoding="UTF-8"?><Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>'
    "<Id>S1</Id><Acct><Id><IBAN>DE89370400440532013000</IBAN></Id><Ccy>EUR</Ccy></Acct>"
    f"{total('OPBD', '1000.00', '2026-01-01')}{total('CLBD', '980.32', '2026-01-03')}"
    f"{entry('12.34', 'DBIT', '2026-01-02', 'Coffee')}{entry('12.34', 'DBIT', '2026-01-02', 'Coffee')}"
    f"{entry('5.00', 'CRDT', '2026-01-03', 'Interest')}{entry('99.00', 'DBIT', '2026-01-03', 'not yet', 'PDNG')}"
    "</Stmt></BkToCstmrStmt></Document>"
)
FILES: Final = {"mt940": MT940, "ofx": OFX, "camt053": CAMT}


def read(folder: Path, name: str, content: str | bytes, options: StatementOptions = OPEN) -> Book:
    """Reads a statement.

    Raises:
        ImportFileInvalid: there are faults in it.
    """
    file, faults = folder / f"statement.{name}", Faults()
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    reader: Any = import_module(f"importers.{name}")
    book = book_of(name, file.name, reader.read_statements(file, None, faults), options, faults)
    faults.require_none()
    return book


def ids(book: Book) -> set[str]:
    return {command.body["id"] for stage in stages_of(book) for chain in stage for command in chain}


@pytest.mark.parametrize("name", FILES)
def test_a_statement_is_the_same_facts_in_every_format(tmp_path: Path, name: str) -> None:
    """Two equal coffees are two facts, and an entry that the bank has not booked is none."""
    book = read(tmp_path, name, FILES[name])
    assert [(one.kind, one.amount, one.occurred_at[:10]) for one in book.transactions] == [
        ("deposit", 100_000, "2026-01-01"),
        ("withdrawal", 1_234, "2026-01-02"),
        ("withdrawal", 1_234, "2026-01-02"),
        ("deposit", 500, "2026-01-03"),
    ]
    assert [one.reference for one in book.transactions][1:] == ["Coffee", "Coffee", "Interest"]
    assert [(account.owner_id, account.currency) for account in book.accounts] == [(OWNER, "EUR")]
    assert len(ids(book)) == 5
    given = read(tmp_path, name, FILES[name], StatementOptions({"": ACCOUNT}, "", opening_balance=False, continues=False))
    assert (given.accounts, {one.account_id for one in given.transactions}) == ([], {ACCOUNT})


@pytest.mark.parametrize("name", FILES)
def test_a_longer_statement_has_the_same_ids_for_what_it_had_before(tmp_path: Path, name: str) -> None:
    shorter: dict[str, Callable[[str], str]] = {
        "mt940": lambda text: text.replace(":61:2601030103C5,NTRFREF2\n:86:Interest\n", "").replace("980,32", "975,32"),
        "ofx": lambda text: "\n".join(line for line in text.splitlines() if "FITID>4" not in line),
        "camt053": lambda text: text.replace(entry("5.00", "CRDT", "2026-01-03", "Interest"), "").replace("980.32", "975.32"),
    }
    before, after = read(tmp_path, name, shorter[name](FILES[name])), read(tmp_path, name, FILES[name])
    assert ids(before) < ids(after)
    assert len(ids(after)) == len(ids(before)) + 1


BOMB: Final = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    "<Document><BkToCstmrStmt>&b;</BkToCstmrStmt></Document>"
)
BAD: Final[dict[str, tuple[str, str | bytes, str]]] = {
    "mt940 that does not add up": (
        "mt940",
        MT940.replace("D12,34", "D12,35", 1),
        "do not add up to the closing balance 980.32",
    ),
    "mt940 without a closing balance": (
        "mt940",
        MT940.replace(":62F:", ":99F:"),
        "lacks its opening balance (:60F:)",
    ),
    "mt940 with a wrong line": ("mt940", MT940.replace(":61:2601030103C5,NTRFREF2", ":61:nonsense"), "cannot read «nonsense"),
    "mt940 with three decimals": (
        "mt940",
        MT940.replace("C5,N", "C5,001N"),
        "row 3, column «amount»: «5.001» has 3 decimal",
    ),
    "mt940 in latin-1": ("mt940", MT940.replace("Coffee", "Café").encode("latin-1"), "row 6: is not utf-8: use --encoding"),
    "mt940 that is none": ("mt940", "hello\n", "the file has no statement"),
    "ofx that is none": ("ofx", "hello\n", "is not OFX: OFX header is malformed"),
    "ofx without an amount": ("ofx", OFX.replace("<TRNAMT>5.00", ""), "is not OFX: "),
    "ofx with NaN": ("ofx", OFX.replace("<TRNAMT>5.00", "<TRNAMT>NaN"), "NaN"),
    "ofx that overdraws": (
        "ofx",
        OFX.replace("TRNAMT>1000.00", "TRNAMT>20.00"),
        "would be -4.68 EUR, and the overdraft",
    ),
    "ofx with a currency that is none": ("ofx", OFX.replace("CURDEF>EUR", "CURDEF>XXX"), "XXX"),
    "camt that is cut": ("camt053", CAMT[:300], "is not XML without a document type"),
    "camt with entities": ("camt053", BOMB, "is not XML without a document type: DTDForbidden"),
    "camt of another kind": ("camt053", CAMT.replace("BkToCstmrStmt", "BkToCstmrAcctRpt"), "is not camt.053"),
    "camt that does not add up": ("camt053", CAMT.replace("5.00", "6.00"), "do not add up to the closing balance 980.32"),
    "camt with Infinity": ("camt053", CAMT.replace("5.00", "Infinity"), "row 3, column «amount»: «Infinity» is not an amount"),
    "camt without a direction": ("camt053", CAMT.replace("DBIT", "UP", 1), "row 1, column «amount»: «CdtDbtInd? 12.34» is not"),
    "camt with a day that is none": (
        "camt053",
        CAMT.replace("2026-01-02", "2026-02-30"),
        "row 1, column «date»: «2026-02-30»",
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_what_is_wrong_in_a_statement_is_told(tmp_path: Path, mistake: str) -> None:
    name, content, expected = BAD[mistake]
    with pytest.raises(ImportFileInvalid) as refused:
        read(tmp_path, name, content)
    assert expected in str(refused.value)


def test_a_statement_of_an_account_that_was_not_given_is_refused(tmp_path: Path) -> None:
    nowhere = StatementOptions({"DE02": ACCOUNT}, "", opening_balance=False, continues=False)
    with pytest.raises(ImportFileInvalid, match="use --account DE89370400440532013000=ID for an account of Daybook, or --owner"):
        read(tmp_path, "camt053", CAMT, nowhere)


ODD: Final = (b"", b"\0", b"<", b"&x;", b"\n", b"9" * 30, b":61:", b"NaN", b"\xff")


@pytest.mark.proof(150, 30_000)
def test_random_statements_are_read_or_refused(tmp_path: Path, repetitions: int) -> None:
    refused = 0
    for seed in range(repetitions):
        chance = random.Random(seed)
        name = chance.choice(sorted(FILES))
        content = FILES[name].encode()
        for _ in range(chance.choice((1, 2, 5))):
            place, odd = chance.randrange(len(content)), chance.choice(ODD)
            content = content[:place] + odd + content[place + chance.choice((0, 1, 8)) :]
        try:
            assert all(one.amount > 0 for one in read(tmp_path, name, content).transactions), seed
        except ImportFileInvalid:
            refused += 1
    assert refused > 0
