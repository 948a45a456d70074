"""Everything that docs/how-do-i.md prints for a shell or for Python does what the page says."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx2
import pytest

from dev.data_folder import ROOT
from dev.ports import free_port
from dev.seed import seed
from shared.settings import Settings
from shared.web.api_client import wait_until_caught_up
from tests.docs.test_guides import Shell
from tests.docs.test_readme import as_pattern, steps
from tests.harness.keys import OPERATOR
from tests.harness.running import Stack, environment_of

pytestmark = pytest.mark.services

PAGE = (ROOT / "docs/how-do-i.md").read_text()
REPLICAS = "honcho start -c command=2,query=2"


@pytest.mark.slow
async def test_every_command_on_the_page_does_what_is_printed_below_it(stack: Stack, tmp_path: Path) -> None:
    urls = stack.settings.command_url, stack.settings.query_url
    await seed(*urls, OPERATOR)
    assert await wait_until_caught_up(urls[1], OPERATOR, 60)
    shell = Shell(tmp_path, stack.settings)
    commands = dict(steps(PAGE))
    assert commands.pop(REPLICAS)
    assert len(commands) >= 6
    for command, printed in commands.items():
        _, out, err = await shell.run(command)
        assert as_pattern(printed).match(out), f"{command}\nprinted  {out}{err}\nexpected {printed}"
    [script] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "client.py").write_text(script)
    code, out, err = await shell.run(f"PYTHONPATH={ROOT / 'clients/python'} {sys.executable} client.py")
    assert (code, out.splitlines()[-1]) == (0, "EUR"), err


@pytest.mark.slow
async def test_two_replicas_of_each_api_listen_beside_each_other(settings: Settings, tmp_path: Path) -> None:
    """The Procfile runs as printed. PORT, which honcho gives to each process, changes nothing."""
    ports = free_port(), free_port()
    environment = environment_of(settings) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DAYBOOK_HOST": "127.0.0.1",
        "DAYBOOK_COMMAND_PORT": str(ports[0]),
        "DAYBOOK_QUERY_PORT": str(ports[1]),
        "DAYBOOK_DATA_DIR": str(tmp_path),
    }
    with (tmp_path / "log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *REPLICAS.split(), cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        async with asyncio.timeout(120), httpx2.AsyncClient(trust_env=False) as client:
            for port in (ports[0], ports[0] + 10, ports[1], ports[1] + 10):
                while not await _is_ready(client, port):
                    assert running.returncode is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.1)
    finally:
        running.send_signal(signal.SIGTERM)
        await running.wait()


async def _is_ready(client: httpx2.AsyncClient, port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
    except httpx2.TransportError:
        return False
