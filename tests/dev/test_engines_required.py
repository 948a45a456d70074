"""A test whose engine is missing is skipped on a developer's machine, and fails where the engine must be there."""

import subprocess
from pathlib import Path

import pytest

from dev.data_folder import ROOT
from dev.engine_jars import DEFINITIONS
from dev.servers import Server
from tests.harness.engines import ENGINES, VARIABLE, lacks, read_required, running


class MissingServer(Server):
    engine = "kafka"
    programs = ("a-program-that-nobody-has",)


@pytest.mark.parametrize(("required", "outcome"), [({"nats"}, pytest.skip.Exception), ({"kafka"}, pytest.fail.Exception)])
def test_a_missing_server_is_a_failure_only_if_it_is_required_and_both_say_why(
    required: set[str], outcome: type[BaseException], tmp_path: Path
) -> None:
    either = (pytest.skip.Exception, pytest.fail.Exception)
    with pytest.raises(either, match="a-program-that-nobody-has was not found") as ended:
        running(MissingServer("x", tmp_path), required).__enter__()
    assert ended.type is outcome
    with pytest.raises(either, match="run `make engines`") as ended:
        lacks("kafka", "run `make engines`", required)
    assert ended.type is outcome


def test_an_engine_that_nobody_knows_is_no_requirement() -> None:
    assert read_required("kafka,nats") == {"kafka", "nats"}
    assert read_required("") == set()
    with pytest.raises(pytest.UsageError, match=f"{VARIABLE} names 'kafak'; the engines are cassandra, "):
        read_required("kafka,kafak")


def test_every_engine_of_make_engines_can_be_required() -> None:
    assert {definition.name for definition in DEFINITIONS.iterdir()} <= ENGINES


def test_the_gate_requires_what_it_could_install_and_names_the_rest(tmp_path: Path) -> None:
    """The script of the gate runs as it is, with an `apt-get` and a `make` that fail to install anything."""
    for name, script in {
        "apt-get": "exit 1",
        "make": f'case "$*" in engines) echo tried >>{tmp_path}/tries; exit 1;; test|slow) echo "$1 $ENGINES_REQUIRED";; esac',
        "dirname": 'exec /usr/bin/dirname "$@"',
        "env": 'exec /usr/bin/env "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    gate = subprocess.run(
        ["/bin/bash", ROOT / ".ci/run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert gate.returncode == 0, gate.stderr
    [test, slow] = gate.stdout.splitlines()
    required = test.removeprefix("test ").split(",")
    assert slow == f"slow {','.join(required)}"
    assert {"nats", "patroni", "examples", "typescript"} <= set(required) <= ENGINES - {"chromium", "mariadb", "pgbouncer"}
    for name in ("chromium", "mariadb", "pgbouncer"):
        assert f"{name} could not be installed" in gate.stderr
    assert (tmp_path / "tries").read_text() == 3 * "tried\n"
