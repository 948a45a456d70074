"""The site that `make docs` builds has every page in its navigation, and nothing on it comes from another host. Builds nothing.

Zensical's strict mode finds broken links too, but only while it builds.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from typing import Any, Final

from dev.data_folder import ROOT
from dev.docs_site import REFERENCE, llms, navigation, pages, settings

PAGES: Final = pages()
LINK: Final = re.compile(r"\]\(([^):]+)\)")
VENDORED: Final = "e8e412dbcfea9b7e31b5ffa288d7b6035915e714c542f4176a0cdbe262fc9609"
"""The SHA-256 of shim/index.js in version 1.0.4 of iframe-worker."""


def test_the_navigation_has_every_page_once() -> None:
    """Also each page of a folder, and each script of docs/. A script elsewhere is only linked to."""
    kept = [path for path in PAGES if path.startswith("docs/") or not path.endswith(".py.md")]
    assert len(kept) > 60
    assert sorted(_paths(navigation())) == sorted([*kept, *REFERENCE.values()])


def test_the_navigation_has_the_order_of_the_list_of_pages() -> None:
    """Its sections and their pages; the pages of a folder are below that folder's README."""
    listed = (ROOT / "docs/README.md").read_text()
    all_pages, *sections, reference = navigation()
    assert (all_pages, *reference) == ({"All pages": "docs/README.md"}, "Reference")
    assert [next(iter(section)) for section in sections] == re.findall(r"^## (.+)$", listed, re.MULTILINE)
    labels = [label for section in sections for items in section.values() for item in items for label in item]
    assert labels == re.findall(r"^- \[(.+?)\]", listed, re.MULTILINE)


def test_every_link_leads_to_a_page_and_to_a_heading_that_is_there() -> None:
    anchors = {path: set(_anchors(text)) for path, text in PAGES.items()}
    broken = []
    for path, text in PAGES.items():
        for link in LINK.findall(text):
            target, _, anchor = link.partition("#")
            page = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) if target else path
            if page in PAGES:
                broken += [(path, link)] * (anchor not in {"", *anchors[page]})
            elif page.endswith(".md") or not (ROOT / page).is_file():
                broken.append((path, link))
    assert broken == []


def test_lists_are_the_same_on_the_site_and_in_the_browser_of_the_repository() -> None:
    """Python-Markdown wants an empty line before a list, and four spaces before a paragraph or a block of code in an item.

    It takes a line of an item that begins with a number and a full stop for a new item.
    """
    written = {path: text for path, text in PAGES.items() if not path.endswith(".py.md")}
    assert [(path, *found) for path, text in written.items() for found in _other_lists(text)] == []


def test_the_list_for_language_models_names_every_page_that_the_list_of_pages_names() -> None:
    linked = LINK.findall(llms())
    assert len(linked) == len(re.findall(r"^- \[", (ROOT / "docs/README.md").read_text(), re.MULTILINE)) + len(REFERENCE)
    indexes = {re.sub(r"(^|/)README$", r"\1index", path.removesuffix(".md")) + ".html" for path in [*PAGES, *REFERENCE.values()]}
    assert set(linked) - indexes == set()


def test_no_page_loads_anything_from_another_host() -> None:
    """Fonts and the worker of the search would come from elsewhere, if the settings did not say otherwise."""
    assert "font: false" in settings()
    assert "- assets/iframe-worker.js" in settings()
    assert "://" not in settings()
    assert not [path for path, text in PAGES.items() if re.search(r"!\[[^\]]*\]\([a-z]+:", text)]
    vendored = ROOT / "docs/site/iframe-worker.js"
    assert hashlib.sha256(vendored.read_bytes()).hexdigest() == VENDORED
    assert "Permission is hereby granted, free of charge" in vendored.with_name("iframe-worker.LICENSE.txt").read_text()


def test_the_navigation_is_a_line_of_the_settings() -> None:
    assert json.loads(settings().rpartition("\nnav: ")[2]) == navigation()


def _paths(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    else:
        for inner in item.values() if isinstance(item, dict) else item:
            yield from _paths(inner)


def _other_lists(text: str) -> Iterator[tuple[int, str]]:
    before, in_code = "", False
    for number, line in enumerate(text.splitlines(), start=1):
        item = re.match(r"( *)(\d+\.|[*+-]) ", line)
        late = item and not item[1] and before and not re.match(r"(\d+\.|[*+-]) | ", before)
        shallow = not before and re.match(r" {1,3}\S", line)
        if not in_code and (late or shallow or (item and item[1])):
            yield number, line
        in_code ^= line.lstrip().startswith("```")
        before = line


def _anchors(text: str) -> Iterator[str]:
    """The ids of the headings of a page, as the site and the repository's browser make them."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.+)$", without_code, re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "", heading).lower()
        yield re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
