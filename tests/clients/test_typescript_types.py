"""The TypeScript types in clients/typescript: they belong to the OpenAPI documents, and tell a right request from a wrong one."""

import re
import subprocess
from typing import Final

import pytest

from dev.write_client import documents
from dev.write_types import FILES, MAKER, PACKAGE, header_of, types_of
from tests.harness.engines import needs

COMPILER: Final = PACKAGE / "node_modules/.bin/tsc"

needs_typescript = needs("typescript", "the TypeScript compiler is not installed: run `make types`", is_there=COMPILER.exists())


@pytest.mark.slow
def test_the_types_belong_to_the_documents_of_both_apis() -> None:
    """If this fails, run `make types`. The test needs no Node, so a changed route cannot go unnoticed.

    It is no part of `make check`, because somebody who has no npm cannot write the types.
    """
    apis = documents()
    assert apis.keys() == FILES.keys()
    for api, document in apis.items():
        text = FILES[api].read_text()
        assert text.startswith(header_of(document)), f"{FILES[api]} is of another document"
        assert {each["operationId"] for item in document["paths"].values() for each in item.values()} == operations_in(text)


def operations_in(text: str) -> set[str]:
    return set(re.findall(r"^    ([a-z_]+): \{$", text.partition("export interface operations {")[2], re.MULTILINE))


@pytest.mark.slow
@needs_typescript
def test_the_types_are_what_the_generator_makes() -> None:
    assert MAKER.exists()
    assert [str(FILES[api]) for api, document in documents().items() if types_of(document) != FILES[api].read_text()] == []


@pytest.mark.slow
@needs_typescript
def test_the_example_compiles_and_each_of_its_mistakes_is_found() -> None:
    """A mistake that the types let through is an error too: the compiler calls its `@ts-expect-error` unused."""
    assert (PACKAGE / "example.ts").read_text().count("@ts-expect-error") == 3
    compiled = subprocess.run([COMPILER, "--project", PACKAGE], capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, compiled.stdout


@pytest.mark.parametrize("name", ["deposit", "spendable"])
def test_the_readme_shows_the_code_of_the_example(name: str) -> None:
    [shown] = [block for block in re.findall(r"```ts\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL) if name in block]
    assert shown.strip() in (PACKAGE / "example.ts").read_text()
