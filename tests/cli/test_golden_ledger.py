"""Old ledgers stay readable: today's rules decide each of their events again, to the same balances.

`daybook events export` wrote `golden/first.jsonl` before there were holds, reversals and all that came after them. It has replies
to callers, too. `golden/second.jsonl` has events of every type that there was later. `golden/*-balances.json` have what
`GET /v1/accounts` answered. A new type of event needs no new file: `tests/shared/golden` has one of each. If a change of code
fails here, change the code, because the ledgers of users have such events too.
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


@pytest.mark.parametrize(("name", "count", "types", "replies"), [("first", 178, 12, 160), ("second", 198, 22, 0)])
async def test_an_old_ledger_is_decided_again_and_read_to_the_same_balances(
    settings: Settings, name: str, count: int, types: int, replies: int
) -> None:
    file = GOLDEN / f"{name}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    events = [line for line in lines if line["line"] == "event"]
    assert (len(events), len({event["type"] for event in events}), lines[-1]["answers"]) == (count, types, replies)
    assert (await import_from(settings, file, GOLDEN / f"{name}.keys")).is_new
    async with query_api(settings) as api, projecting(api, settings):
        api.position = count
        accounts = [account for page in await api.pages("/v1/accounts", {"limit": 100}) for account in page]
        code, out, err = await daybook(settings, "verify").ended()
        assert code == ExitCode.DONE, out + err
    members = ("posted", "held", "available")
    found = {
        account["id"]: [account["currency"], account["status"], *(account["balance"][each] for each in members)]
        for account in accounts
    }
    assert found == json.loads((GOLDEN / f"{name}-balances.json").read_text())
