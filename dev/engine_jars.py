"""Gets the jars of the engines that only Maven has: `python -m dev.engine_jars`, which `make engines` runs.

Each folder of `dev/engines` is an engine: `pom.xml` names its jars, and Java files beside it are compiled. The result stays in
`engines/NAME` of the virtual environment until a file of the folder changes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from shared.errors import StackError

DEFINITIONS: Final = Path(__file__).parent / "engines"
_MADE: Final = Path(sys.prefix) / "engines"
_MAKE_SECONDS_MAX: Final = 600


def engine_folder(name: str) -> Path:
    """Returns the folder of an engine, with its `jars` and the `classes` of its Java files.

    Raises:
        StackError: `make engines` has not made it, or a file of its definition has changed since.
    """
    folder = _MADE / name
    if not _is_made(name, folder):
        raise StackError(f"the engine {name} is not installed: run `make engines`, which needs Maven and a JDK")
    return folder


def class_path(name: str) -> str:
    """Returns the class path of an engine, for `java -cp`. Raises the error of `engine_folder`."""
    folder = engine_folder(name)
    return f"{folder / 'classes'}{os.pathsep}{folder / 'jars' / '*'}"


def make_engine(name: str) -> None:
    """Makes the folder of an engine, unless it is there.

    Raises:
        StackError: Maven or a JDK is missing or fails.
    """
    folder = _MADE / name
    if _is_made(name, folder):
        return
    unfinished = _MADE / f"{name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "classes").mkdir(parents=True)
    jars = f"-DoutputDirectory={unfinished / 'jars'}"
    _run("mvn", "-q", "-B", "-f", DEFINITIONS / name / "pom.xml", "dependency:copy-dependencies", jars, "-DincludeScope=runtime")
    if sources := sorted((DEFINITIONS / name).glob("*.java")):
        _run("javac", "-nowarn", "-cp", unfinished / "jars" / "*", "-d", unfinished / "classes", *sources)
    (unfinished / "made-of").write_text(_digest(name))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _is_made(name: str, folder: Path) -> bool:
    made_of = folder / "made-of"
    return made_of.exists() and made_of.read_text() == _digest(name)


def _digest(name: str) -> str:
    """Returns a digest of what an engine is made of: `pom.xml` and the Java files."""
    parts = sorted(path for path in (DEFINITIONS / name).iterdir() if path.suffix in {".java", ".xml"})
    return hashlib.sha256(b"\0".join(part.read_bytes() for part in parts)).hexdigest()


def _run(program: str, *arguments: str | Path) -> None:
    try:
        subprocess.run(
            [program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=_MAKE_SECONDS_MAX,
        )
    except FileNotFoundError:
        raise StackError(f"`{program}` was not found: install Maven and a JDK") from None
    except subprocess.TimeoutExpired:
        raise StackError(f"`{program}` takes longer than {_MAKE_SECONDS_MAX} s") from None
    except subprocess.CalledProcessError as failed:
        lines = failed.output.strip().splitlines() or ["it says nothing"]
        raise StackError(f"`{program}` failed: {lines[0][:300]}") from None


def main() -> int:
    """Makes all engines. Prints the name of each that is there, and on stderr why another cannot be made.

    Returns the exit code: 1 if one cannot be made.
    """
    failed = 0
    for definition in sorted(DEFINITIONS.iterdir()):
        try:
            make_engine(definition.name)
            sys.stdout.write(f"{definition.name}\n")
        except StackError as error:
            sys.stderr.write(f"{definition.name}: {error}\n")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
