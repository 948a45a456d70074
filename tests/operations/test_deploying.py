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

KUBERNETES: list[dict[str, Any]] = [*yaml.safe_load_all((ROOT / "operations/kubernetes/daybook.yaml").read_text())]
PODS = {each["metadata"]["name"]: each["spec"]["template"] for each in KUBERNETES if "template" in each.get("spec", {})}

DEVELOPMENT = {"attrs", "daybook", "setuptools"}
"""Where setuptools is installed, Python imports a part of it at every start. Rich uses attrs if it can."""

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


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["migrate", "command", "query", "worker"])
def test_a_pod_runs_what_the_container_of_the_same_name_runs(name: str) -> None:
    [container] = PODS[f"daybook-{name}"]["spec"]["containers"]
    command = COMPOSE["services"][name]["command"]
    words = command.split() if isinstance(command, str) else command
    assert " ".join(container["args"]).replace("=", " ") == " ".join(words)
    assert container["image"] == COMPOSE["services"][name]["image"]
    given = {each["name"] for each in container.get("env", ())} | set(KUBERNETES[0]["data"])
    secret = {"DAYBOOK_DATABASE_URL", "DAYBOOK_MONGO_URL", "DAYBOOK_REDIS_URL", "DAYBOOK_SECRET", "DAYBOOK_MASTER_KEYS"}
    assert set(COMPOSE["services"][name]["environment"]) <= given | secret


@pytest.mark.parametrize("name", ["migrate", "command", "query", "worker"])
def test_no_pod_runs_as_root_or_writes_outside_its_tmp(name: str) -> None:
    spec = PODS[f"daybook-{name}"]["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["automountServiceAccountToken"] is False
    rights = container["securityContext"]
    assert rights == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert [each["mountPath"] for each in container["volumeMounts"]] == ["/tmp"]


@pytest.mark.parametrize(("name", "alive"), [("command", "/livez"), ("query", "/livez"), ("worker", "/metrics")])
def test_a_pod_is_asked_at_its_own_port_and_has_the_time_to_end(name: str, alive: str) -> None:
    spec = PODS[f"daybook-{name}"]["spec"]
    [container] = spec["containers"]
    [port] = container["ports"]
    assert str(port["containerPort"]) in COMPOSE["services"][name]["healthcheck"]["test"][-1]
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {alive}
    if name != "worker":
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    probes = [value["httpGet"]["port"] for key, value in container.items() if key.endswith("Probe")]
    assert {*probes} == {port["name"]}
    drained = int(KUBERNETES[0]["data"]["DAYBOOK_DRAIN_MS"]) / 1000
    assert spec["terminationGracePeriodSeconds"] >= drained + 20


def test_every_selector_finds_the_pods_of_one_deployment() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}
    for each in KUBERNETES:
        selector = each.get("spec", {}).get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            found = [name for name, has in labels.items() if wanted.items() <= has.items()]
            assert found == [each["metadata"]["name"]], each["kind"]


@pytest.mark.slow
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
