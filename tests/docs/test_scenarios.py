"""The pages of docs/scenarios print what stands below their code."""

import re
import sys
from pathlib import Path
from typing import Final

import pytest

from dev.data_folder import ROOT
from tests.docs.test_guides import Shell
from tests.docs.test_readme import as_pattern
from tests.harness.running import Stack

FOLDER: Final = ROOT / "docs/scenarios"
PAGES: Final = sorted(page.name for page in FOLDER.glob("*.md") if page.name != "README.md")
BLOCK: Final = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
END: Final = "-- end of a block --\n"


def test_the_list_of_scenarios_is_complete() -> None:
    assert sorted(re.findall(r"\]\(([\w-]+\.md)\):", (FOLDER / "README.md").read_text())) == PAGES


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("page", PAGES)
async def test_each_block_prints_what_stands_below_it(stack: Stack, tmp_path: Path, page: str) -> None:
    blocks = BLOCK.findall((FOLDER / page).read_text())
    assert len(blocks) >= 3
    script = tmp_path / "scenario.py"
    script.write_text("".join(f"{code}\nprint({END!r}, end='')\n" for code, _ in blocks))
    code, out, err = await Shell(tmp_path, stack.settings).run(f"PYTHONPATH={FOLDER} {sys.executable} scenario.py")
    assert code == 0, out + err
    for (source, expected), printed in zip(blocks, out.split(END), strict=False):
        assert as_pattern(expected).fullmatch(printed), f"{source}\nprinted  {printed}\nexpected {expected}"
