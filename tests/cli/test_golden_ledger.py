"""An old ledger stays readable: today's rules decide each of its events again, to the same balances.

`golden/ledger.jsonl` was written by `daybook events export`. It has events of every type that there was then, and
`golden/balances.json` has what `GET /v1/accounts` answered. A new type of event needs no new file: `tests/shared/golden` has one
of each. If a change of code fails here, change the code, because the ledgers of users have such events too.
"""

import json
from pathlib import Path
from typing import Final

import pytest

from cli.exit_codes import ExitCode
from shared.settings import Settings
from tests.cli.test_export_and_import import import_from
from tests.harness.questions import projecting, query_api
from tests.harness.terminals import daybook

pytestmark = pytest.mark.services

GOLDEN: Final = Path(__file__).parent / "golden"
EVENTS: Final = 198
TYPES: Final = 22


async def test_an_old_ledger_is_decided_again_and_read_to_the_same_balances(settings: Settings) -> None:
    file = GOLDEN / "ledger.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    events = [line for line in lines if line["line"] == "event"]
    assert (len(events), len({event["type"] for event in events})) == (EVENTS, TYPES)
    assert (await import_from(settings, file, GOLDEN / "ledger.keys")).is_new
    async with query_api(settings) as api, projecting(api, settings):
        api.position = EVENTS
        accounts = [account for page in await api.pages("/v1/accounts", {"limit": 100}) for account in page]
        code, out, err = await daybook(settings, "verify").ended()
        assert code == ExitCode.DONE, out + err
    members = ("posted", "held", "available")
    found = {
        account["id"]: [account["currency"], account["status"], *(account["balance"][each] for each in members)]
        for account in accounts
    }
    assert found == json.loads((GOLDEN / "balances.json").read_text())
