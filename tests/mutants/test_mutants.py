"""`make mutants` changes modules that exist, with tests that exist, and counts truly what it finds."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.mutants.mutation_run import ROOT, Tried, outcomes_in, sample_of, settings_of
from tests.mutants.parts import PARTS


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_part_has_modules_and_tests(name: str) -> None:
    part = PARTS[name]
    assert all([*ROOT.glob(pattern)] for pattern in part.modules)
    paths = [selected.partition("::")[0] for selected in part.tests if selected.startswith("tests/")]
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("name", sorted(PARTS))
def test_mutmut_is_told_what_the_part_is(name: str) -> None:
    settings = tomllib.loads(settings_of(PARTS[name]))["tool"]["mutmut"]
    assert settings["only_mutate"] == [*PARTS[name].modules]
    assert settings["pytest_add_cli_args_test_selection"] == [*PARTS[name].tests]
    assert {"dev", "migrations", "query_api"} <= {*settings["also_copy"]}, "the tests import them"
    assert not {"command_api", "tests"} & {*settings["also_copy"]}, "mutmut would overwrite its mutants"


def test_a_seed_chooses_the_same_mutants_again() -> None:
    names = [f"mutant {number}" for number in range(100)]
    assert sample_of(names, 10, 1) == sample_of(names[::-1], 10, 1)
    assert sample_of(names, 10, 1) != sample_of(names, 10, 2)
    assert len({*sample_of(names, 10, 1)}) == 10
    assert sample_of(names, 100, 1) == sorted(names)


def test_a_mutant_that_no_test_reaches_counts_as_a_survivor(tmp_path: Path) -> None:
    codes = {"a": 1, "b": 0, "c": 33, "d": -24, "e": None, "f": 1}
    folder = tmp_path / "mutants" / "room"
    folder.mkdir(parents=True)
    (folder / "module.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    tried = Tried(outcomes_in(tmp_path), 50)
    assert tried.survivors() == ["b", "c"]
    assert tried.line().startswith("6 of 50 mutants: 2 killed, ")
    assert tried.line().endswith("60.0 % killed"), "three of the five that were tried: what was not tried does not count"
