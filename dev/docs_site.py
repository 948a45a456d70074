"""Writes what Zensical builds the site of the documentation from, for `make docs`: pages, navigation and settings.

Pages keep their paths of the repository, so their links to each other hold. A script that a page links to becomes a page too. The
navigation is the list in docs/README.md.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dev.data_folder import ROOT

START: Final = ROOT / "docs/README.md"
REFERENCE: Final = {
    "Command API": "reference/command-api.md",
    "Bodies of the command API": "reference/command-api-bodies.md",
    "Query API": "reference/query-api.md",
    "Bodies of the query API": "reference/query-api-bodies.md",
    "Event types": "reference/event-types.md",
    "Command line": "reference/command-line.md",
}
"""The pages that `cli.reference_pages` makes from the code, by their titles."""
SOURCE_SUFFIX: Final = ".py"
LINK: Final = re.compile(r"\]\(([^)#:]+)((?:#[^)]*)?)\)")
LISTED: Final = re.compile(r"^- \[(.+?)\]\((.+?)\): (.+(?:\n  .+)*)", re.MULTILINE)

Navigation = list[Any]
"""Items as in `nav` of mkdocs.yml: a path, or an object with one title and its path or items."""


def write_site(folder: Path, reference: Mapping[str, str]) -> None:
    """Replaces `folder`. `reference` has further files of the site by their paths, among them the pages of REFERENCE."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in {**pages(), **reference, "llms.txt": llms()}.items():
        _write(folder / "pages" / path, text)
    for path in _linked_files():
        _copy(ROOT / path, folder / "pages" / path)
    for vendored in (ROOT / "docs/site").glob("iframe-worker.*"):
        _copy(vendored, folder / "pages/assets" / vendored.name)
    _write(folder / "mkdocs.yml", settings())


def settings() -> str:
    """Returns docs/site/mkdocs.yml with the navigation. JSON is YAML too."""
    return f"{(ROOT / 'docs/site/mkdocs.yml').read_text(encoding='utf-8')}nav: {json.dumps(navigation())}\n"


def pages() -> dict[str, str]:
    """Returns the Markdown of each page that is kept in the repository, by its path in the site."""
    written = {_name(path): LINK.sub(_to_page, path.read_text(encoding="utf-8")) for path in _documents()}
    return written | {_page_of(source): _source_page(source) for source in _sources()}


def navigation() -> Navigation:
    """Returns the sections of docs/README.md with the pages that it lists, and the reference after them."""
    sections = [{title: [_entry(label, path) for label, path, _ in entries]} for title, entries in _listed()]
    return [{"All pages": _name(START)}, *sections, {"Reference": [{title: path} for title, path in REFERENCE.items()]}]


def llms() -> str:
    """Returns llms.txt: the list of pages for language models, with one line about each (llmstxt.org)."""
    summary = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1].replace("\n", " ")
    lines = ["# Daybook", "", f"> {summary}"]
    for title, entries in _listed():
        lines += ["", f"## {title}", "", *(f"- [{label}]({_html(path)}): {about}" for label, path, about in entries)]
    lines += ["", "## Reference", "", *(f"- [{title}]({_html(path)})" for title, path in REFERENCE.items())]
    return "\n".join(lines) + "\n"


def _listed() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yields each section of docs/README.md with the label, the path in the site and the description of its pages."""
    _, *parts = re.split(r"^## (.+)\n", START.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        entries = [(label, _resolved(START, link), " ".join(about.split())) for label, link, about in LISTED.findall(text)]
        yield title, [(label, _page_of(path), about) for label, path, about in entries]


def _entry(label: str, path: str) -> Mapping[str, Any]:
    """A folder of documents is an item with all pages that its README lists."""
    document = ROOT / path
    if document.name != START.name or document.parent == ROOT:
        return {label: path}
    linked = dict.fromkeys(_resolved(document, link) for link, _ in LINK.findall(document.read_text(encoding="utf-8")))
    inside = [other for other in linked if (ROOT / other).is_relative_to(document.parent) and other != path]
    if not inside:
        return {label: path}
    return {label: [{"Overview": path}, *({_title(other): _page_of(other)} for other in inside)]}


def _documents() -> list[Path]:
    """Every page of docs/ and of the examples, and the documents elsewhere that docs/README.md lists."""
    linked = {ROOT / _resolved(START, link) for link, _ in LINK.findall(START.read_text(encoding="utf-8"))}
    folders = {path for name in ("docs", "examples") for path in (ROOT / name).rglob("*.md")}
    return sorted({path for path in linked if path.suffix == ".md"} | folders)


def _sources() -> list[str]:
    return [path for path in _linked_files() if path.endswith(SOURCE_SUFFIX)]


def _linked_files() -> list[str]:
    """Every file that a document links to and that is no document. Zensical finds the links that lead to no file."""
    texts = [(path, path.read_text(encoding="utf-8")) for path in _documents()]
    linked = {_resolved(path, link) for path, text in texts for link, _ in LINK.findall(text)}
    return sorted(path for path in linked if (ROOT / path).is_file() and not path.endswith(".md"))


def _source_page(path: str) -> str:
    name, text = Path(path).name, (ROOT / path).read_text(encoding="utf-8")
    return f"# {name}\n\n`{path}` in the repository · [the file]({name})\n\n````python\n{text}````\n"


def _to_page(link: re.Match[str]) -> str:
    return f"]({_page_of(link[1])}{link[2]})"


def _page_of(path: str) -> str:
    return f"{path}.md" if path.endswith(SOURCE_SUFFIX) else path


def _title(path: str) -> str:
    first = (ROOT / path).read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ") if path.endswith(".md") else Path(path).name


def _html(path: str) -> str:
    """The address of a page in the built site. A README is the index of its folder."""
    return re.sub(r"(^|/)README$", r"\1index", path.removesuffix(".md")) + ".html"


def _resolved(document: Path, link: str) -> str:
    """The path in the repository of what a document links to."""
    return _name((document.parent / link).resolve())


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
