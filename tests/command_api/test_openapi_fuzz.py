"""No request that the command API's OpenAPI document describes, and none that it forbids, is a 500."""

import asyncio
from pathlib import Path

import pytest

from command_api.app import create_app
from shared.settings import Settings
from tests.harness.fuzz import UNLIMITED, fuzz
from tests.harness.running import run_stack


@pytest.mark.services
@pytest.mark.proof(3, 500)
async def test_no_command_is_answered_with_a_500(settings: Settings, tmp_path: Path, repetitions: int) -> None:
    document = create_app(settings).openapi()
    async with run_stack(settings.model_copy(update=UNLIMITED), tmp_path) as stack:
        passed, failures = await asyncio.to_thread(fuzz, document, stack.command.url, repetitions)
    assert failures == []
    assert passed > repetitions
