"""Reads camt.053 statements (ISO 20022) of any version. The XML may have no document type, so it can have no entities."""

from pathlib import Path
from typing import Any, Final

from defusedxml.ElementTree import fromstring

from importers.faults import Faults
from importers.statements import Statement, StatementBalance, StatementEntry

BOOKED: Final = "BOOK"
OPENING: Final = ("OPBD", "PRCD")
"""The opening balance, or the closing balance of the statement before, which some banks send instead."""
CLOSING: Final = ("CLBD",)


def read_statements(path: Path, encoding: str | None, faults: Faults) -> list[Statement]:  # noqa: ARG001 # the XML names it
    try:
        root = fromstring(path.read_bytes(), forbid_dtd=True)
    except (ValueError, SyntaxError, LookupError) as error:  # a document type is a ValueError, and other faults SyntaxErrors
        faults.add(path.name, None, None, f"is not XML without a document type: {error}")
        return []
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]  # versions differ in their namespace only
    found = root.findall("BkToCstmrStmt/Stmt")
    if not found:
        faults.add(path.name, None, None, "is not camt.053: it has no BkToCstmrStmt with a Stmt")
    return [_statement(statement) for statement in found]


def _statement(statement: Any) -> Statement:
    opening, closing = _balance(statement, OPENING), _balance(statement, CLOSING)
    currency = _text(statement, "Acct/Ccy") or next((amount.get("Ccy", "") for amount in statement.iter("Amt")), "")
    return Statement(
        _text(statement, "Acct/Id/IBAN") or _text(statement, "Acct/Id/Othr/Id"),
        currency,
        opening,
        closing,
        [
            _entry(entry)
            for entry in statement.findall("Ntry")
            if _text(entry, "Sts/Cd") == BOOKED or _text(entry, "Sts") == BOOKED
        ],
    )


def _balance(statement: Any, codes: tuple[str, ...]) -> StatementBalance | None:
    for code in codes:
        for balance in statement.findall("Bal"):
            if _text(balance, "Tp/CdOrPrtry/Cd") == code:
                return StatementBalance(_amount(balance), _text(balance, "Dt/Dt") or _text(balance, "Dt/DtTm"))
    return None


def _entry(entry: Any) -> StatementEntry:
    dates = [_text(entry, f"{name}/{part}") for name in ("BookgDt", "ValDt") for part in ("Dt", "DtTm")]
    texts = [part.text or "" for part in entry.findall("NtryDtls/TxDtls/RmtInf/Ustrd")] or [_text(entry, "AddtlNtryInf")]
    bank_id = _text(entry, "AcctSvcrRef") or _text(entry, "NtryRef")
    return StatementEntry(bank_id, _amount(entry), next((date for date in dates if date), ""), " ".join(texts))


def _amount(element: Any) -> str:
    """Returns an amount with its sign. One that does not say its direction gets a text that is refused."""
    sign = {"CRDT": "", "DBIT": "-"}.get(_text(element, "CdtDbtInd"), "CdtDbtInd? ")
    return sign + _text(element, "Amt")


def _text(element: Any, path: str) -> str:
    return (element.findtext(path) or "").strip()
