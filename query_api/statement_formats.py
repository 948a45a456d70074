"""Writes a statement as CSV, as a page to print, and as camt.053 (ISO 20022). The texts in it come from callers.

CSV follows RFC 4180. A spreadsheet would run a cell that begins with one of `FORMULA_SIGNS` as a formula, so such a text gets an
apostrophe in front. Amounts are numbers that Daybook makes, so they keep their sign. HTML has no scripts, and everything in it is
escaped.
"""

import csv
import io
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Final
from xml.sax.saxutils import escape as escape_xml

from shared.money import exponent

FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")
COLUMNS: Final = (
    "position",
    "occurred_at",
    "recorded_at",
    "kind",
    "counterparty_account_id",
    "reference",
    "amount",
    "balance",
    "after_close",
)
_TEXTS: Final = frozenset({"reference"})
AFTER_CLOSE: Final = "Recorded after the day was closed in which it occurred"
"""What HTML and camt.053 say of such an entry."""
MARK: Final = "*"
"""Stands in HTML beside the moment of each entry of which `AFTER_CLOSE` is true."""
_CAMT: Final = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"

StatementBody = Mapping[str, Any]
"""A statement as its JSON answer has it."""


def as_csv(statement: StatementBody) -> str:
    """Returns a line for the opening balance, one for each entry, and one for the closing balance. Amounts are minor units."""
    written = io.StringIO()
    rows = csv.writer(written)
    rows.writerow(COLUMNS)
    rows.writerow(_balance_row(statement["from"], "opening balance", statement["opening_balance"]))
    for line in statement["lines"]:
        rows.writerow([_cell(name, line[name]) for name in COLUMNS])
    rows.writerow(_balance_row(statement["to"], "closing balance", statement["closing_balance"]))
    return written.getvalue()


def _balance_row(moment: str, kind: str, balance: int) -> list[Any]:
    values = {"occurred_at": moment, "recorded_at": moment, "kind": kind, "balance": balance}
    return [values.get(name, "") for name in COLUMNS]


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if name in _TEXTS and value.startswith(FORMULA_SIGNS) else value


def as_html(statement: StatementBody) -> str:
    """Returns a page to print, with amounts in major units."""
    currency = statement["currency"]
    rows = [_html_row(statement["from"], "opening balance", "", "", major(statement["opening_balance"], currency))]
    for line in statement["lines"]:
        amounts = major(line["amount"], currency), major(line["balance"], currency)
        moment = line[statement["axis"]] + (f" {MARK}" if line["after_close"] else "")
        rows.append(_html_row(moment, line["kind"], line["reference"] or "", *amounts))
    rows.append(_html_row(statement["to"], "closing balance", "", "", major(statement["closing_balance"], currency)))
    title = escape(f"Statement of account {statement['account_id']} in {currency}")
    heads = "".join(f"<th>{head}</th>" for head in (statement["axis"], "kind", "reference", "amount", "balance"))
    legend = f"<p>{MARK} {AFTER_CLOSE}.</p>" if any(line["after_close"] for line in statement["lines"]) else ""
    style = "body{font-family:sans-serif}td,th{padding:.2em .8em;text-align:left}td:nth-child(n+4){text-align:right}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
        f"<body><h1>{title}</h1><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>{legend}"
        "</body></html>"
    )


def _html_row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def as_camt053(statement: StatementBody) -> str:
    """Returns a document of camt.053.001.08 with one statement: opening and closing balance, and an entry for each line.

    The message takes ids of at most 34 characters, so ids are written without hyphens.
    """
    currency, account = statement["currency"], statement["account_id"].replace("-", "")
    entries = "".join(_camt_entry(line, statement["axis"], currency) for line in statement["lines"])
    opening = _camt_balance("OPBD", statement["opening_balance"], statement["from"], currency)
    closing = _camt_balance("CLBD", statement["closing_balance"], statement["to"], currency)
    made_at = statement["to"]
    period = f"<FrToDt><FrDtTm>{statement['from']}</FrDtTm><ToDtTm>{statement['to']}</ToDtTm></FrToDt>"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Document xmlns="{_CAMT}"><BkToCstmrStmt>'
        f"<GrpHdr><MsgId>{account[-12:]}-{statement['position']}</MsgId><CreDtTm>{made_at}</CreDtTm></GrpHdr>"
        f"<Stmt><Id>{account[-12:]}-{statement['position']}</Id><CreDtTm>{made_at}</CreDtTm>{period}"
        f"<Acct><Id><Othr><Id>{account}</Id></Othr></Id><Ccy>{currency}</Ccy></Acct>{opening}{closing}{entries}"
        f"</Stmt></BkToCstmrStmt></Document>"
    )


def _camt_balance(code: str, balance: int, moment: str, currency: str) -> str:
    kind = f"<Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
    return f"<Bal>{kind}{_camt_amount(balance, currency)}<Dt><DtTm>{moment}</DtTm></Dt></Bal>"


def _camt_entry(line: Mapping[str, Any], axis: str, currency: str) -> str:
    reference = line["reference"]
    text = f"<RmtInf><Ustrd>{escape_xml(reference)}</Ustrd></RmtInf>" if reference else ""
    information = f"<AddtlNtryInf>{AFTER_CLOSE}</AddtlNtryInf>" if line["after_close"] else ""
    return (
        f"<Ntry><NtryRef>{line['position']}</NtryRef>{_camt_amount(line['amount'], currency)}<Sts><Cd>BOOK</Cd></Sts>"
        f"<BookgDt><DtTm>{line[axis]}</DtTm></BookgDt><ValDt><DtTm>{line['occurred_at']}</DtTm></ValDt>"
        f"<BkTxCd><Prtry><Cd>{line['kind']}</Cd></Prtry></BkTxCd>"
        f"<NtryDtls><TxDtls><Refs><TxId>{line['transfer_id'].replace('-', '')}</TxId></Refs>{text}</TxDtls></NtryDtls>"
        f"{information}</Ntry>"
    )


def _camt_amount(amount: int, currency: str) -> str:
    indicator = "CRDT" if amount >= 0 else "DBIT"
    return f'<Amt Ccy="{currency}">{major(abs(amount), currency)}</Amt><CdtDbtInd>{indicator}</CdtDbtInd>'


def major(amount: int, currency: str) -> str:
    """Returns an amount in major units, exactly: -1205 in EUR is "-12.05"."""
    places = exponent(currency)
    digits = f"{abs(amount):0{places + 1}d}"
    whole, fraction = (digits[:-places], digits[-places:]) if places else (digits, "")
    return ("-" if amount < 0 else "") + whole + (f".{fraction}" if fraction else "")


FORMATS: Final[Mapping[str, Callable[[StatementBody], str]]] = {
    "text/csv": as_csv,
    "text/html": as_html,
    "application/xml": as_camt053,
}
