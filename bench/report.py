"""Writes the report: puts the tables between two markers of a document, and keeps the text around them."""

import os
import platform
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.load_generators import generator
from bench.measurement import Section, Target, TargetOutcome, judge
from bench.scale import Scale

BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"
PLOTS: Final = "plots"
COLUMNS_MAX: Final = 100
"""The width at which lines of text are wrapped. Lines of tables are not wrapped."""

_MEDIANS: Final = "Medians over the rounds, with the least and the greatest."

PACKAGES: Final = ("fastapi", "uvicorn", "uvloop", "httptools", "sqlalchemy", "asyncpg", "motor", "redis", "pydantic")


def document(sections: Sequence[Section], targets: Sequence[Target], machine: Sequence[str], command: str) -> str:
    """Returns the report in Markdown, without a heading of the first level."""
    parts = [
        f"## Measured\n\n{_wrapped(f'`{command}` measured all of this in one run. {_MEDIANS}')}",
        "\n".join(_wrapped(line, bullet="- ") for line in machine),
        "### Targets\n\nA ratio is the median of each round's ratio.\n\n" + _targets(sections, targets),
        *map(_section, sections),
    ]
    return "\n\n".join(parts)


def machine_facts(scale: Scale, sync_us: float, servers: str) -> list[str]:
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {_processor()}, {os.cpu_count()} cores, {_memory()}, {platform.system()}",
        f"a 4 KiB write is on disk in {sync_us:.0f} µs (median)",
        f"Python {platform.python_version()}; " + ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        f"{servers}; durability as in production: fsync, synchronous_commit, full_page_writes on; journal and majority",
        "each API one uvicorn process with uvloop and httptools, no access log; everything on loopback and on the same cores",
        f"load: {generator()}; {scale.rounds} rounds, {scale.seconds:g} s each, interleaved",
    ]


def _targets(sections: Sequence[Section], targets: Sequence[Target]) -> str:
    """Returns the table of the targets whose benchmarks were run."""
    names = {section.name for section in sections}
    rows = [_target(target, judge(target, sections)) for target in targets if names.issuperset(target.benchmark.split())]
    return _table(("what", "measured", "yardstick", "ratio", "target", "reached", "command"), rows)


def _target(target: Target, verdict: TargetOutcome) -> list[str]:
    reached = {True: "yes", False: "**no**", None: "not measured"}[verdict.reached]
    measured = f"{verdict.measured} {target.figure.column}" if verdict.measured else ""
    command = f"`python -m bench {target.benchmark}`"
    return [target.what, measured, verdict.yardstick, verdict.ratio, target.says(), reached, command]


def _section(section: Section) -> str:
    header = ("", *section.columns)
    rows = [[each.name, *map(each.cell, section.columns)] for each in section.measurements.values()]
    plots = [f"![{section.title}]({PLOTS}/{name})" for name in section.plots]
    command = f"`python -m bench {section.name}`"
    return "\n\n".join([f"### {section.title}", command, _table(header, rows), *map(_wrapped, section.notes), *plots])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _wrapped(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        text,
        COLUMNS_MAX,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


def write(folder: Path, text: str, sections: Sequence[Section]) -> None:
    """Writes the report into `benchmarks.md` and the plots into their folder."""
    path = folder / "benchmarks.md"
    path.write_text(between_markers(path.read_text(), text))
    (folder / PLOTS).mkdir(exist_ok=True)
    for section in sections:
        for name, svg in section.plots.items():
            (folder / PLOTS / name).write_text(svg)


def between_markers(page: str, text: str) -> str:
    """Returns the document with `text` between the two markers, in place of the old text.

    Raises:
        ValueError: the document does not have both markers in the right order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"the page must have the lines {BEGIN} and {END}"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    kibibytes = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{kibibytes / 2**20:.0f} GiB"
