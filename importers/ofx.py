"""Reads OFX statements, version 1 (SGML) and 2 (XML), with the package ofxtools."""

import io
from pathlib import Path
from typing import Any

from ofxtools.Parser import OFXTree

from importers.faults import Faults
from importers.statements import Statement, StatementEntry


def read_statements(path: Path, encoding: str | None, faults: Faults) -> list[Statement]:  # noqa: ARG001 # the header names it
    try:
        tree = OFXTree()
        tree.parse(io.BytesIO(path.read_bytes()))
        return [_statement(statement) for statement in tree.convert().statements]
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 # the package raises errors of any kind for what it cannot read
        faults.add(path.name, None, None, f"is not OFX: {str(error).partition(chr(10))[0] or type(error).__name__}")
        return []


def _statement(statement: Any) -> Statement:
    # A card has a number, and an account a number within a bank.
    bank = getattr(statement.account, "bankid", None)
    number = f"{bank}/{statement.account.acctid}" if bank else statement.account.acctid
    return Statement(number, statement.curdef, None, None, [_entry(entry) for entry in statement.transactions or ()])


def _entry(entry: Any) -> StatementEntry:
    texts = [text for text in (entry.name, entry.memo) if text]
    return StatementEntry(entry.fitid, format(entry.trnamt, "f"), entry.dtposted.isoformat(), " ".join(dict.fromkeys(texts)))
