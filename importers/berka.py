"""Maps the files of the PKDD'99 "Berka" bank to users, accounts and transactions.

Clients become users, and accounts become accounts in CZK of their owners. An incoming payment becomes a deposit, and an outgoing
payment becomes a withdrawal.
"""

from typing import Final

from importers.mapping import CsvMapping, TableMapping

BERKA: Final = CsvMapping(
    source="berka",
    delimiter=";",
    encoding="latin-1",
    dates="%y%m%d",
    users=TableMapping(
        "client.asc",
        columns={"id": "{client_id}", "name": "Client {client_id}", "email": "client-{client_id}@berka.example"},
    ),
    accounts=TableMapping(
        "disp.asc",
        only={"type": "OWNER"},
        columns={
            "id": "{account_id}",
            "owner_id": "{client_id}",
            "currency": "CZK",
            # The bank does not say its limits. All years of its data stay above this one, whichever part of them is imported.
            "overdraft_limit": "100000.00",
        },
    ),
    transactions=TableMapping(
        "trans.asc",
        columns={"id": "{trans_id}", "account_id": "{account_id}", "date": "{date}", "reference": "berka {trans_id}"},
        # "Příjem" is an incoming payment, and "výdaj" and "výběr" are outgoing.
        values={"type": {"PRIJEM": "deposit", "VYDAJ": "withdrawal", "VYBER": "withdrawal"}},
    ),
)
