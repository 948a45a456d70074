"""The files for Prometheus and Grafana are right: their own tools accept them, and each metric that they name exists."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.child_processes import Child
from dev.data_folder import ROOT
from dev.ports import free_port
from shared.settings import Settings
from tests.harness.clients import EUROS, Commands, created
from tests.harness.keys import OPERATOR, bearer
from tests.harness.projecting import eventually
from tests.harness.running import Stack, run_stack

PROMETHEUS = ROOT / "operations/prometheus"
RULES = PROMETHEUS / "daybook.rules.yml"
DASHBOARD = json.loads((ROOT / "operations/grafana/daybook.json").read_text())
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())
OURS = re.compile(r"\b(?:daybook|process)_[a-z_]+")
PARTS = re.compile(r"_(?:bucket|count|sum)$")
ROW = re.compile(r"^\| `(daybook_\w+)` \| (\w+) \| ([\w, ]*) \| ([cqw ]+) \| (.+) \|$", re.MULTILINE)
OF_LETTERS = {"c": "command", "q": "query", "w": "worker"}

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool on PATH: apt install prometheus")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus on PATH: apt install prometheus")


def expressions_of_dashboard() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def as_prometheus_reads_it(expression: str) -> str:
    """Grafana replaces its variables before Prometheus sees the expression."""
    return expression.replace("$__rate_interval", "1m").replace("$ledger", ".*")


class Scraped(NamedTuple):
    stack: Stack
    worker_port: int
    texts: dict[str, str]
    """The metrics of each process, as Prometheus gets them."""


@asynccontextmanager
async def scraped_stack(settings: Settings, folder: Path) -> AsyncIterator[Scraped]:
    """A running system that has done a little of everything that is measured."""
    port = free_port()
    nobody = f"nats://127.0.0.1:{free_port()}"  # the state of publishing is known without a broker
    async with run_stack(settings, folder, DAYBOOK_WORKER_METRICS_PORT=str(port), DAYBOOK_PUBLISH_URL=nobody) as stack:
        async with httpx2.AsyncClient(
            headers=bearer(OPERATOR), base_url=stack.command.url, trust_env=False, timeout=60
        ) as client:
            api = Commands(client)
            account_id, payee = await api.account(balance=500), await api.account()
            tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
            created(await api.post("/v1/holds", {"account_id": account_id, "amount": 1, "expires_at": tomorrow, **EUROS}))
            transfer = {"from_account_id": account_id, "to_account_id": payee, "amount": 1, **EUROS}
            created(await api.post("/v1/schedules", {"transfer": transfer, "at": tomorrow}))
            urls = {
                "command": f"{stack.command.url}/metrics",
                "query": f"{stack.query.url}/metrics",
                "worker": f"http://127.0.0.1:{port}/metrics",
            }
            texts: dict[str, str] = {}

            async def has_all() -> bool:
                """The worker publishes its reports once a second."""
                for name, url in urls.items():
                    texts[name] = (await client.get(url)).text
                return 'kind="schedule"' in texts["worker"] and "daybook_worker_task_failing{" in texts["query"]

            await eventually(has_all)
            yield Scraped(stack, port, texts)


@pytest.mark.slow
@pytest.mark.services
async def test_every_metric_is_documented_and_every_metric_that_anything_names_exists(settings: Settings, tmp_path: Path) -> None:
    async with scraped_stack(settings, tmp_path) as scraped:
        texts = scraped.texts
    documented = {
        (name, OF_LETTERS[letter]): (kind, set(labels.split(", ")) - {""}, help_)
        for name, kind, labels, of, help_ in ROW.findall((ROOT / "docs/metrics.md").read_text())
        for letter in of.split()
    }
    found = {}
    existing = set()
    for process, text in texts.items():
        for family in text_string_to_metric_families(text):
            existing |= {sample.name for sample in family.samples}
            if not family.name.startswith("daybook"):
                continue
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels if label != "le"}
            assert family.samples, f"{name} of {process} has no sample"
            found[name, process] = family.type, labels, family.documentation
    assert found == documented
    named = {"the alerts": RULES.read_text(), "the dashboard": "\n".join(expressions_of_dashboard())}
    missing = {where: set(OURS.findall(text)) - existing for where, text in named.items()}
    assert missing == {"the alerts": set(), "the dashboard": set()}
    used = {PARTS.sub("", name) for text in named.values() for name in OURS.findall(text)}
    only_to_look_up = {"daybook_info", "daybook_task_failures_total", "daybook_worker_task_failures_total", "daybook_writes"}
    assert {PARTS.sub("", name) for name, _ in documented} - used == only_to_look_up


@pytest.mark.slow
@needs_promtool
def test_promtool_accepts_the_rules_the_configuration_and_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:number{n}", "expr": as_prometheus_reads_it(e)} for n, e in enumerate(expressions_of_dashboard())]
    assert len(rules) > 25
    of_dashboard = tmp_path / "dashboard.yml"
    of_dashboard.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for arguments in (
        ("check", "rules", RULES),
        ("check", "rules", of_dashboard),
        ("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml"),
        ("test", "rules", PROMETHEUS / "daybook.rules.test.yml"),
    ):
        ended = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_each_alert_is_tested_and_is_in_the_runbook() -> None:
    assert len(ALERTS) > 10
    assert re.findall(r"name: (\w+) fires", (PROMETHEUS / "daybook.rules.test.yml").read_text()) == ALERTS
    assert re.findall(r"name: (\w+) is quiet", (PROMETHEUS / "daybook.rules.test.yml").read_text()) == ALERTS
    assert re.findall(r"^## (Daybook\w+)", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE) == ALERTS
    assert re.findall(r"runbook: docs/runbook.md#(\w+)", RULES.read_text()) == [alert.lower() for alert in ALERTS]


@pytest.mark.slow
@needs_prometheus
@pytest.mark.services
async def test_prometheus_scrapes_all_processes_with_the_shipped_files_and_every_panel_shows_something(
    settings: Settings, tmp_path: Path
) -> None:
    async with scraped_stack(settings, tmp_path) as scraped:
        folder = tmp_path / "prometheus"
        shutil.copytree(PROMETHEUS, folder)
        (folder / "daybook.key").write_text(f"{OPERATOR}\n")
        configuration = (folder / "prometheus.yml").read_text().replace("15s", "1s")
        places = {"command:8000": scraped.stack.command.url, "query:8001": scraped.stack.query.url}
        for target, url in {**places, "worker:9464": f"http://127.0.0.1:{scraped.worker_port}"}.items():
            assert configuration.count(target) == 1
            configuration = configuration.replace(target, url.removeprefix("http://"))
        (folder / "prometheus.yml").write_text(configuration)
        port = free_port()
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        prometheus = Child("prometheus", tmp_path / "prometheus.log", [*command, f"--web.listen-address=127.0.0.1:{port}"])
        await prometheus.start()
        try:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                jobs = {"daybook-command", "daybook-query", "daybook-worker"}
                await eventually(lambda: _jobs_that_are_up(client, jobs), about=prometheus.log)
                await asyncio.sleep(5)  # a rate needs a few scrapes
                empty = [e for e in expressions_of_dashboard() if not await _result(client, as_prometheus_reads_it(e))]
                assert empty == []
                loaded = (await client.get("/api/v1/rules")).json()["data"]["groups"][0]["rules"]
                assert [(rule["name"], rule["state"], rule["health"]) for rule in loaded] == [
                    (alert, "inactive", "ok") for alert in ALERTS
                ]
        finally:
            await prometheus.stop()


async def _jobs_that_are_up(client: httpx2.AsyncClient, jobs: set[str]) -> bool:
    try:
        if not (await client.get("/-/ready")).is_success:
            return False  # It listens before it has read its files, and answers with a 503 without JSON.
        return {sample["metric"]["job"] for sample in await _result(client, "up == 1")} == jobs
    except httpx2.TransportError:
        return False


async def _result(client: httpx2.AsyncClient, expression: str) -> list[dict[str, Any]]:
    answer = (await client.get("/api/v1/query", params={"query": expression})).json()
    result: list[dict[str, Any]] = answer["data"]["result"] if answer["status"] == "success" else []
    return result
