"""Reads MT940 statements, with the package mt-940."""

import logging
from pathlib import Path
from typing import Any

import mt940

from importers.csv_files import read_file_text
from importers.faults import Faults, quoted
from importers.statements import Statement, StatementBalance, StatementEntry

logging.getLogger("mt940").setLevel(logging.CRITICAL + 1)  # it logs each line that it cannot read, which becomes a fault here


def read_statements(path: Path, encoding: str | None, faults: Faults) -> list[Statement]:
    text = read_file_text(path, encoding, faults)
    if text is None:
        return []
    try:
        found = mt940.parse_statements(text, options=mt940.Options.all())
        return [_statement(statement) for statement in found]
    except Exception as error:  # noqa: BLE001 # the package raises errors of any kind for lines that it cannot read
        faults.add(path.name, None, None, f"is not MT940: {_reason(error)}")
        return []


def _reason(error: Exception) -> str:
    line = next((part for part in error.args[1:] if isinstance(part, str)), "")
    return f"cannot read {quoted(line)}" if line else str(error) or type(error).__name__


def _statement(statement: Any) -> Statement:
    data = statement.data
    opening = data.get("final_opening_balance") or data.get("intermediate_opening_balance")
    closing = data.get("final_closing_balance") or data.get("intermediate_closing_balance")
    if opening is None or closing is None:
        raise ValueError("a statement lacks its opening balance (:60F:) or its closing balance (:62F:)")
    return Statement(
        data.get("account_identification", "").strip(),
        opening.amount.currency,
        _balance(opening),
        _balance(closing),
        [_entry(entry.data) for entry in statement.transactions if "amount" in entry.data],
    )


def _balance(balance: Any) -> StatementBalance:
    return StatementBalance(format(balance.amount.amount, "f"), balance.date.isoformat())


def _entry(data: dict[str, Any]) -> StatementEntry:
    texts = [
        data.get(name) for name in ("purpose", "transaction_details", "applicant_name", "extra_details", "customer_reference")
    ]
    return StatementEntry(
        data.get("bank_reference") or "",
        format(data["amount"].amount, "f"),
        data["date"].isoformat(),
        next((text for text in texts if text), ""),
    )
