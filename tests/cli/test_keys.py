"""Runs `daybook keys` and `daybook master-keys` as an administrator does, on a real database."""

import asyncio
import base64
import os
import re
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from cli.app import app
from shared.errors import Unauthorized
from shared.identity.access import CUSTOMER_SCOPES, Principal
from shared.identity.api_keys import ApiKeys, key_id_of
from shared.identity.credential_cache import CredentialCache
from shared.settings import Settings
from shared.stores.postgres import open_postgres, open_postgres_as_owner
from tests.harness import log
from tests.harness.log import MASTER_KEY, Book
from tests.harness.running import environment_of

pytestmark = pytest.mark.services

TOKEN = re.compile(r"dbk_[a-z2-7]{10}_[A-Za-z0-9_-]{43}")


class Admin:
    def __init__(self, settings: Settings) -> None:
        self.environment = environment_of(settings)

    async def run(self, *arguments: str, **more: str) -> Result:
        environment = {**self.environment, **more}
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=environment)

    async def keys(self, *arguments: str) -> str:
        """Runs a command that must succeed, and returns what it prints."""
        result = await self.run("keys", *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    async def create(self, name: str, *arguments: str) -> str:
        token = await self.keys("create", "--name", name, *arguments)
        assert TOKEN.fullmatch(token), "the token, and nothing else, so that a script can take it"
        return token


@pytest.fixture
def admin(settings: Settings) -> Admin:
    return Admin(settings)


async def caller(settings: Settings, token: str) -> Principal | None:
    """The caller that a process which has just started takes the token for."""
    async with open_postgres(settings, "daybook_query") as engine:
        callers = CredentialCache(ApiKeys(engine))
        try:
            return await callers.principal([f"Bearer {token}"])
        except Unauthorized:
            return None
        finally:
            await callers.close()


async def test_a_key_is_shown_once_and_opens_what_it_was_made_for(admin: Admin, settings: Settings) -> None:
    token = await admin.create("billing", "--scope", "transfers:write", "--scope", "ledger:read")
    found = await caller(settings, token)
    assert found == Principal("billing", key_id_of(token), "main", None, frozenset({"transfers:write", "ledger:read"}))
    shown = await admin.keys("list")
    assert key_id_of(token) in shown
    assert "billing" in shown
    assert token.split("_", 2)[2] not in shown
    connection = await asyncpg.connect(settings.database_url, ssl=False)
    rows = str(await connection.fetch("SELECT * FROM api_keys"))
    await connection.close()
    assert token.split("_", 2)[2] not in rows, "the database has its hash only"


async def test_a_customers_key_has_the_scopes_that_customers_have_a_use_for(admin: Admin, settings: Settings) -> None:
    user = Book().create_user()
    async with open_postgres(settings, "daybook_command") as writer:
        await log.append(writer, [user])
    found = await caller(settings, await admin.create("customer-7", "--user", user.user_id.upper()))
    assert found
    assert (found.user_id, found.scopes) == (user.user_id, frozenset(CUSTOMER_SCOPES))


async def test_a_rotated_key_works_for_the_overlap_and_its_caller_stays_the_same(admin: Admin, settings: Settings) -> None:
    old = await admin.create("billing", "--scope", "ledger:read", "--expires", "30m")
    new = await admin.keys("rotate", key_id_of(old), "--overlap", "24h")
    before, after = await caller(settings, old), await caller(settings, new)
    assert before
    assert after
    assert (before.principal, before.scopes) == (after.principal, after.scopes)
    assert key_id_of(new) != key_id_of(old)
    newest = await admin.keys("rotate", key_id_of(new), "--overlap", "0")
    assert await caller(settings, new) is None
    assert await caller(settings, newest)
    async with open_postgres(settings, "daybook_admin") as engine, engine.connect() as connection:
        row = await connection.execute(
            text("SELECT extract(epoch FROM expires_at - now()) FROM api_keys WHERE key_id = :id"), {"id": key_id_of(old)}
        )
        assert 0 < row.scalar_one() <= 1_800, "an overlap never makes a key live longer"


async def test_a_revoked_key_is_refused_and_stays_in_the_list(admin: Admin, settings: Settings) -> None:
    token = await admin.create("billing", "--scope", "ledger:read")
    assert await admin.keys("revoke", key_id_of(token)) == ""
    assert await caller(settings, token) is None
    [row] = [line for line in (await admin.keys("list")).splitlines() if key_id_of(token) in line]
    assert "revoked" in row
    again = await admin.run("keys", "revoke", key_id_of(token))
    assert again.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--name", "Bill!", "--scope", "ledger:read"), "63 lower-case letters"),
        (("--name", "operator", "--scope", "ledger:read"), "daybook keys rotate"),
        (("--name", "a", "--scope", "ledger:read", "--ledger", "nowhere"), "no ledger 'nowhere'"),
        (("--name", "a", "--scope", "ledger:reed"), "there is no scope"),
        (("--name", "a"), "give at least one"),
        (("--name", "a", "--user", "ada"), "which is a UUID"),
        (("--name", "a", "--scope", "ledger:read", "--expires", "soon"), "90d, 24h, 30m"),
        (("--name", "a", "--scope", "ledger:read", "--expires", "-1d"), "90d, 24h, 30m"),
        (("--name", "a", "--scope", "ledger:read", "--ledger", "Main!"), "lower-case letters"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_with_what_would_help(admin: Admin, arguments: tuple[str, ...], says: str) -> None:
    before = await admin.keys("list")
    result = await admin.run("keys", "create", *arguments)
    assert result.exit_code != 0
    said = result.output
    assert says in said
    assert said.count("\n") == 1
    assert not TOKEN.search(said)
    assert await admin.keys("list") == before


@pytest.mark.parametrize("command", ["rotate", "revoke"])
async def test_a_key_that_is_not_there_is_named(admin: Admin, command: str) -> None:
    result = await admin.run("keys", command, "aaaaaaaaaa")
    assert (result.exit_code, "aaaaaaaaaa" in result.stderr) == (1, True)


async def test_two_keys_made_at_once_cannot_have_the_same_name(admin: Admin, settings: Settings) -> None:
    results = await asyncio.gather(*(_in_process(settings) for _ in range(2)))
    assert sorted(code for code, _ in results) == [0, 1], results
    assert [line for line in (await admin.keys("list")).splitlines() if "racing" in line][1:] == []


async def _in_process(settings: Settings) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(os.sys.executable, "-m", "cli.app", "keys", "create", "--name", "racing", "--scope", "ledger:read"),  # type: ignore[attr-defined]
        env={"PATH": os.environ["PATH"], **environment_of(settings)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_a_database_that_does_not_answer_is_said_in_one_line(admin: Admin) -> None:
    result = await admin.run("keys", "list", DAYBOOK_DATABASE_URL="postgresql://daybook:secret@127.0.0.1:1/daybook")
    assert (result.exit_code, result.stderr.count("\n")) == (69, 1)
    assert "PostgreSQL does not answer" in result.stderr
    assert "secret" not in result.output


# ── master keys ──────────────────────────────────────────────────────────────────────────────────────────────────────

OTHER = base64.b64encode(b"another master key of the tests!").decode()


async def test_master_keys_are_rotated_by_command_and_the_old_one_is_needed_no_more(admin: Admin, settings: Settings) -> None:
    book = Book()
    async with open_postgres(settings, "daybook_command") as writer:
        await log.append(writer, [book.create_user() for _ in range(3)])
    rotated = await admin.run("master-keys", "rotate", DAYBOOK_MASTER_KEYS=f"{OTHER},{MASTER_KEY}")
    assert rotated.exit_code == 0, rotated.exception
    assert rotated.stdout.startswith("4 person keys were wrapped again"), "of three people, and the one that hashes addresses"
    assert "\npeople       ok" in (await admin.run("verify", DAYBOOK_MASTER_KEYS=OTHER)).stdout
    async with open_postgres_as_owner(settings) as owner, owner.connect() as connection:
        ids: Any = (await connection.execute(text("SELECT DISTINCT master_key_id FROM person_keys"))).scalars().all()
    assert len(ids) == 1
    assert ids[0] in rotated.stdout


async def test_without_the_old_master_key_nothing_is_rewrapped(admin: Admin, settings: Settings) -> None:
    async with open_postgres(settings, "daybook_command") as writer:
        await log.append(writer, [Book().create_user()])
    refused = await admin.run("master-keys", "rotate", DAYBOOK_MASTER_KEYS=OTHER)
    assert (refused.exit_code, "DAYBOOK_MASTER_KEYS does not name" in refused.stderr) == (78, True)
    away = await admin.run("master-keys", "rotate", DAYBOOK_DATABASE_URL="postgresql://daybook@127.0.0.1:1/daybook")
    assert (away.exit_code, "PostgreSQL does not answer" in away.stderr) == (69, True)
