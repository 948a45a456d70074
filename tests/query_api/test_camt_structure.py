"""Statements as camt.053 have the structure that ISO 20022 publishes for the message camt.053.001.08.

`SEQUENCES` and `TEXTS` say what the published schema says of the elements that Daybook writes, and of the elements among which
they stand: the order, how often each may occur, and the form of the texts.
"""

import re
import uuid
from collections.abc import Iterator
from typing import Any, Final
from xml.etree.ElementTree import Element, fromstring

import pytest

from query_api.statement_formats import AFTER_CLOSE, as_camt053
from shared.money import AMOUNT_MAX

NAMESPACE: Final = "{urn:iso:std:iso:20022:tech:xsd:camt.053.001.08}"

SEQUENCES: Final[dict[str, str]] = {
    "Document": "BkToCstmrStmt",
    "BkToCstmrStmt": "GrpHdr Stmt+ SplmtryData*",
    "GrpHdr": "MsgId CreDtTm MsgRcpt? MsgPgntn? OrgnlBizQry? AddtlInf?",
    "Stmt": "Id StmtPgntn? ElctrncSeqNb? RptgSeq? LglSeqNb? CreDtTm? FrToDt? CpyDplctInd? RptgSrc? Acct RltdAcct? Intrst* Bal+ "
    "TxsSummry? Ntry* AddtlStmtInf?",
    "FrToDt": "FrDtTm ToDtTm",
    "Acct": "Id Tp? Ccy? Nm? Prxy? Ownr? Svcr?",
    "Acct/Id": "Othr",
    "Othr": "Id SchmeNm? Issr?",
    "Bal": "Tp CdtLine* Amt CdtDbtInd Dt Avlbty*",
    "Tp": "CdOrPrtry SubTp?",
    "CdOrPrtry": "Cd",
    "Dt": "DtTm",
    "Ntry": "NtryRef? Amt CdtDbtInd RvslInd? Sts BookgDt? ValDt? AcctSvcrRef? Avlbty* BkTxCd ComssnWvrInd? AddtlInfInd? AmtDtls? "
    "Chrgs? TechInptChanl? Intrst? CardTx? NtryDtls* AddtlNtryInf?",
    "Sts": "Cd",
    "BookgDt": "DtTm",
    "ValDt": "DtTm",
    "BkTxCd": "Domn? Prtry?",
    "Prtry": "Cd Issr?",
    "NtryDtls": "Btch? TxDtls*",
    "TxDtls": "Refs? Amt? CdtDbtInd? AmtDtls? Avlbty* BkTxCd? Chrgs? Intrst? RltdPties? RltdAgts? LclInstrm? Purp? RltdRmtInf* "
    "RmtInf? RltdDts? RltdPric? RltdQties* FinInstrmId? Tax? RtrInf? CorpActn? SfkpgAcct? CshDpst* CardTx? AddtlTxInf? "
    "SplmtryData*",
    "Refs": "MsgId? AcctSvcrRef? PmtInfId? InstrId? EndToEndId? UETR? TxId? MndtId? ChqNb? ClrSysRef? AcctOwnrTxId? "
    "AcctSvcrTxId? MktInfrstrctrTxId? PrcgId? Prtry*",
    "RmtInf": "Ustrd* Strd*",
}
"""Element, or parent and element where the same name has several types → its children. A choice lists what Daybook chooses."""

MAX_35: Final = r".{1,35}"
MOMENT: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"
TEXTS: Final[dict[str, str]] = {
    "MsgId": MAX_35,
    "Stmt/Id": MAX_35,
    "Othr/Id": r".{1,34}",
    "NtryRef": MAX_35,
    "TxId": MAX_35,
    "CreDtTm": MOMENT,
    "FrDtTm": MOMENT,
    "ToDtTm": MOMENT,
    "DtTm": MOMENT,
    "Ccy": r"[A-Z]{3}",
    "Amt": r"(?=(\D*\d){1,18}\D*$)\d+(\.\d{1,5})?",
    "CdtDbtInd": r"CRDT|DBIT",
    "CdOrPrtry/Cd": r".{1,4}",
    "Sts/Cd": r".{1,4}",
    "Prtry/Cd": MAX_35,
    "Ustrd": r"(?s).{1,140}",
    "AddtlNtryInf": r"(?s).{1,500}",
}


def faults(element: Element, parent: str = "") -> Iterator[str]:
    """Yields what of an element and of all that it contains is not as the schema says."""
    name = element.tag.removeprefix(NAMESPACE)
    place = f"{parent}/{name}"
    children = [child.tag.removeprefix(NAMESPACE) for child in element]
    sequence = SEQUENCES.get(place) or SEQUENCES.get(name)
    form = TEXTS.get(place) or TEXTS.get(name)
    if children:
        pattern = "".join(f"(?:{each.rstrip('?*+')} ){each[len(each.rstrip('?*+')) :]}" for each in (sequence or "").split())
        if sequence is None or not re.fullmatch(pattern, "".join(f"{child} " for child in children)):
            yield f"{place} has {children}"
    elif form is None or not re.fullmatch(form, element.text or ""):
        yield f"{place} is {element.text!r}"
    if set(element.attrib) != ({"Ccy"} if name == "Amt" else set()):
        yield f"{place} has the attributes {element.attrib}"
    for child in element:
        yield from faults(child, name)


def statement(currency: str, amounts: list[int]) -> dict[str, Any]:
    moment = "2026-01-31T12:00:00.000000Z"
    lines = [
        {
            "position": 2**53 - 1,
            "amount": amount,
            "balance": amount,
            "occurred_at": moment,
            "recorded_at": moment,
            "kind": "withdrawal",
            "transfer_id": str(uuid.UUID(int=number)),
            "counterparty_account_id": None,
            "reference": [None, "r" * 140, "<&>\"'", "\u00e4\u6f22"][number % 4],
            "after_close": number % 2 == 1,
        }
        for number, amount in enumerate(amounts)
    ]
    return {
        "account_id": str(uuid.UUID(int=7)),
        "currency": currency,
        "axis": "occurred_at",
        "from": moment,
        "to": moment,
        "position": 2**53 - 1,
        "opening_balance": -5,
        "closing_balance": AMOUNT_MAX,
        "lines": lines,
    }


@pytest.mark.parametrize("currency", ["EUR", "JPY", "KWD", "CLF"])
@pytest.mark.parametrize("amounts", [[], [1], [-1, 5, AMOUNT_MAX, -AMOUNT_MAX, 7]])
def test_a_statement_has_the_published_structure(currency: str, amounts: list[int]) -> None:
    document = fromstring(as_camt053(statement(currency, amounts)))
    assert document.tag == f"{NAMESPACE}Document"
    assert [*faults(document)] == []
    entries = document.findall(f".//{NAMESPACE}Ntry")
    assert len(entries) == len(amounts)
    marked = [number for number, entry in enumerate(entries) if entry.findtext(f"{NAMESPACE}AddtlNtryInf") == AFTER_CLOSE]
    assert marked == list(range(1, len(amounts), 2))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("<Acct>", "<Acct><Nm>x</Nm>"),
        ("<CdtDbtInd>CRDT</CdtDbtInd>", ""),
        ("<Sts><Cd>BOOK</Cd></Sts>", "<Sts>BOOK</Sts>"),
        ("<Ccy>EUR</Ccy>", "<Ccy>Euro</Ccy>"),
        ('<Amt Ccy="EUR">0.05</Amt>', '<Amt Ccy="EUR">-0.05</Amt>'),
        ('<Amt Ccy="EUR">0.05</Amt>', "<Amt>0.05</Amt>"),
        ("<NtryRef>", "<NtryRef>00000000000000000000"),
    ],
)
def test_another_structure_is_found(right: str, wrong: str) -> None:
    text = as_camt053(statement("EUR", [5]))
    assert right in text
    assert [*faults(fromstring(text.replace(right, wrong, 1)))] != []
