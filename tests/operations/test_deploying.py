"""The files for containers and for continuous integration fit the processes as they are run and tested everywhere else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.data_folder import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
PROCFILE = dict(re.findall(r"^(\w+): (.*)$", (ROOT / "Procfile").read_text(), re.MULTILINE))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IN_THE_IMAGE = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

DEVELOPMENT = {"daybook", "setuptools"}
"""Where setuptools is installed, Python imports a part of it at every start."""

IMPORTS = """
import functools, importlib, sys
from importlib.metadata import files, packages_distributions
for name in ("command_api.app", "query_api.app", "projector.worker", "cli.app"):
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.argv[1]), module.__file__
distributions = packages_distributions()
paths = functools.cache(lambda distribution: {str(path.locate()) for path in files(distribution)})
found = set()
for name, module in sys.modules.items():
    owners = set(distributions.get(name.partition(".")[0], ()))
    if len(owners) > 1:  # a namespace of several distributions
        owners = {owner for owner in owners if getattr(module, "__file__", None) in paths(owner)}
    found |= owners
print(*sorted(name.lower().replace("_", "-").replace(".", "-") for name in found))
"""


@pytest.mark.parametrize(("service", "process", "app"), [("command", "command", "command_api"), ("query", "query", "query_api")])
def test_a_container_runs_an_api_as_the_procfile_does(service: str, process: str, app: str) -> None:
    container, procfile = COMPOSE["services"][service]["command"].split(), PROCFILE[process].split()
    options = procfile[procfile.index("--no-access-log") :]
    assert container[container.index("--no-access-log") :] == options
    port = container[container.index("--port") + 1]
    assert f"{app}.app:create_app" in container
    assert COMPOSE["services"][service]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/livez" in COMPOSE["services"][service]["healthcheck"]["test"][-1]
    assert port in re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[0].split()


def test_a_container_runs_the_worker_as_the_procfile_does_and_prometheus_knows_all_three() -> None:
    worker = COMPOSE["services"]["worker"]
    assert PROCFILE["projector"].endswith(worker["command"])
    targets = re.findall(r'targets: \["(.+)"\]', (ROOT / "operations/prometheus/prometheus.yml").read_text())
    ports = {name: COMPOSE["services"][name]["ports"][0].rpartition(":")[2] for name in ("command", "query")}
    ports["worker"] = worker["environment"]["DAYBOOK_WORKER_METRICS_PORT"]
    assert targets == [f"{name}:{port}" for name, port in ports.items()]


@pytest.mark.parametrize("service", ["migrate", "command", "query", "worker"])
def test_no_container_of_ours_runs_as_root_or_writes_to_its_image(service: str) -> None:
    container = COMPOSE["services"][service]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["image"] == "daybook"
    assert int(re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[-1]) >= 10_000


@pytest.mark.long
def test_the_image_has_all_that_the_processes_import_and_they_import_nothing_that_it_lacks(tmp_path: Path) -> None:
    for pattern in IN_THE_IMAGE:
        for path in ROOT.glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, tmp_path / path.name)
    command = [sys.executable, "-c", IMPORTS, str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    installed = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    imported = set(ended.stdout.split())
    assert len(imported) > 20
    assert imported - {name.lower().replace("_", "-").replace(".", "-") for name in installed} <= DEVELOPMENT


def test_continuous_integration_runs_the_gate_on_each_version_of_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    gate = workflow["jobs"]["gate"]
    assert gate["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert [step["run"] for step in gate["steps"] if "run" in step][-1] == ".ci/run"
    assert workflow["permissions"] == {"contents": "read"}


def test_the_audit_reads_every_list_of_packages() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    [hashed] = re.findall(r"^HASHED := (.*)$", makefile, re.MULTILINE)
    assert sorted(hashed.split()) == sorted(path.stem for path in ROOT.glob("requirements*.txt"))
    for name in hashed.split():
        assert (ROOT / f"{name}.in").exists()
        assert "--hash=sha256:" in (ROOT / f"{name}.txt").read_text()
