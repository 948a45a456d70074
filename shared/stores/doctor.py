"""Finds unsafe settings and unsafe configurations of the stores, and says how to correct them.

`daybook doctor` shows the findings. In production, a process makes the same checks and does not start if a finding is dangerous.
A store that does not answer, or does not permit a query, is a finding too. The checks only read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from itertools import chain
from typing import Final

from pymongo.errors import PyMongoError

from shared.errors import DaybookError, UnsafeSettings
from shared.logs import kind_of
from shared.optional_stores import OPTIONAL_STORES, OptionalStoreKind
from shared.settings import Settings
from shared.stores.all_stores import module_of
from shared.stores.findings import Finding, found
from shared.stores.postgres import Role
from shared.stores.server_checks import check_mongo, check_postgres, check_redis
from shared.stores.settings_checks import check_settings, check_urls
from shared.stores.store_errors import POSTGRES_AND_REDIS_ERRORS

EXAMINATION_SECONDS_MAX: Final = 5.0
_BROKER_CHECK: Final = "shared.publishing.broker_check"
"""Imported only where something is published."""
NO_ANSWER: Final = "no-answer"
EXAMINING_ROLES: Final[tuple[Role, ...]] = ("daybook_query", "daybook_command", "daybook_projector")


async def examine(settings: Settings, role: Role = "daybook_query") -> list[Finding]:
    """Returns all findings, the dangerous ones first. Queries PostgreSQL as `role`. Takes at most `EXAMINATION_SECONDS_MAX`."""
    by_store = await _check_stores(settings, role)
    return _sorted(settings, by_store)


async def examine_as_any_role(settings: Settings) -> list[Finding]:
    """Returns all findings, the dangerous ones first. Queries PostgreSQL as the first role that the login may act as.

    Examines the optional stores and the broker too. No process does at its start, because each of them stops only its own read
    models, or publishing. Takes at most `EXAMINATION_SECONDS_MAX` for each role, and once more for those.
    """
    by_store: dict[str, list[Finding]] = {}
    for role in EXAMINING_ROLES:
        by_store = await _check_stores(settings, role)
        if not any(finding.name == NO_ANSWER for finding in by_store["PostgreSQL"]):
            break
    checks = {kind.title: _check_optional(settings, kind) for kind in OPTIONAL_STORES if kind.is_configured(settings)}
    if settings.publish_url:
        checks["the broker"] = _check_broker(settings)
    found = await asyncio.gather(*(_asked(title, check) for title, check in checks.items()))
    return _sorted(settings, by_store | dict(zip(checks, found, strict=True)))


async def _check_optional(settings: Settings, kind: OptionalStoreKind) -> AsyncIterator[Finding]:
    async for finding in module_of(kind, kind.checks).check_store(settings):
        yield finding


async def _check_broker(settings: Settings) -> AsyncIterator[Finding]:
    async for finding in import_module(_BROKER_CHECK).check_broker(settings):
        yield finding


async def _check_stores(settings: Settings, role: Role) -> dict[str, list[Finding]]:
    stores = {"PostgreSQL": check_postgres(settings, role), "MongoDB": check_mongo(settings), "Redis": check_redis(settings)}
    found = await asyncio.gather(*(_asked(store, check) for store, check in stores.items()))
    return dict(zip(stores, found, strict=True))


def _sorted(settings: Settings, by_store: dict[str, list[Finding]]) -> list[Finding]:
    """Returns the findings about the settings and the stores, the dangerous ones first."""
    findings = [*check_settings(settings), *check_urls(settings), *chain.from_iterable(by_store.values())]
    return sorted(findings, key=lambda finding: (finding.severity != "danger", finding.name))


async def require_safe(settings: Settings, role: Role, say: Callable[[str], object]) -> None:
    """In production, checks that there are no dangerous findings. Passes one line for each dangerous finding to `say`.

    A store that does not answer is ignored here, because each process checks the stores that it needs.

    Raises:
        UnsafeSettings: there are dangerous findings.
    """
    if settings.environment != "production":
        return
    findings = [finding for finding in await examine(settings, role) if finding.severity == "danger"]
    dangers = [finding for finding in findings if finding.name != NO_ANSWER]
    for finding in dangers:
        say(f"daybook: {finding}")
    if dangers:
        names = ", ".join(sorted({finding.name for finding in dangers}))
        raise UnsafeSettings(f"not safe for production ({names}): `daybook doctor` says what to do")


async def _asked(store: str, check: AsyncIterator[Finding]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(EXAMINATION_SECONDS_MAX):
            async for finding in check:
                findings.append(finding)  # noqa: PERF401 # findings from before an error must be kept
    except (*POSTGRES_AND_REDIS_ERRORS, PyMongoError, DaybookError) as error:
        findings.append(found(NO_ANSWER, store=store, reason=kind_of(error)))
    return findings
