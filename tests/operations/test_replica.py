"""The query API reads events and proofs from a replica of PostgreSQL, and misses nothing when it is late or away."""

from pathlib import Path

import pytest

from dev.servers import start_all, stop_all
from shared.settings import Settings
from shared.stores.doctor import examine
from tests.harness.databases import copy_postgres
from tests.harness.log import Book
from tests.harness.projecting import eventually
from tests.harness.questions import query_api
from tests.harness.standby import Standby
from tests.query_api.test_receipts import seal

pytestmark = [pytest.mark.services, pytest.mark.slow]


async def test_a_replica_answers_what_it_has_and_the_primary_everything_else(
    migrated_postgres: Path, settings: Settings, tmp_path: Path
) -> None:
    primary = copy_postgres(migrated_postgres, tmp_path)
    replica = Standby("replica", tmp_path, primary)
    try:
        await start_all(primary)
        await start_all(replica)
        there = settings.model_copy(update={"database_url": primary.url, "replica_url": replica.url})
        assert "postgres-asynchronous" in {finding.name for finding in await examine(there)}
        async with query_api(there) as api:
            book = Book()
            opened = book.open_account(book.new_id())
            deposit = book.deposit(opened.account_id, 100)
            await api.record([opened, deposit])
            await seal(api, there, tmp_path)
            old = api.position

            async def has_seal() -> bool:
                return await replica.execute("SELECT count(*) FROM seals") == 1

            await eventually(has_seal)
            await replica.execute("SELECT pg_wal_replay_pause()")
            later = book.deposit(opened.account_id, 200)
            await api.record([later])

            # The replica stands still, and answers what it has. The position says how old that is.
            answer = await api.client.get("/v1/events")
            assert [each["position"] for each in answer.json()["items"]] == [1, 2]
            assert answer.headers["daybook-position"] == str(old)
            receipt = (await api.client.get(f"/v1/transfers/{deposit.transfer_id}/receipt")).json()
            assert receipt["position"] == 2

            # What it lacks, the primary has.
            rest = await api.client.get("/v1/events", params={"after": old})
            assert [each["position"] for each in rest.json()["items"]] == [3]
            newest = await api.client.get("/v1/events", headers={"daybook-min-position": str(api.position)})
            assert [each["position"] for each in newest.json()["items"]] == [1, 2, 3]
            await seal(api, there, tmp_path)
            sealed = await api.client.get(f"/v1/transfers/{later.transfer_id}/receipt")
            assert sealed.json()["seal"]["position"] == 3
            proof = await api.client.get("/v1/seals/3/consistency", params={"from": 2})
            assert proof.status_code == 200, proof.text

            await replica.kill()
            for _ in range(2):
                answer = await api.client.get("/v1/events")
                assert [each["position"] for each in answer.json()["items"]] == [1, 2, 3]
                assert answer.headers["daybook-position"] == str(api.position)
    finally:
        await stop_all(replica, primary)
