"""Writes the TypeScript types of clients/typescript from the OpenAPI documents of both APIs, with `openapi-typescript`.

Run `make types` after you add or change a route or a body. A test compares the hash in each file with the document, so that it
finds an old file also where there is no Node.
"""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from dev.data_folder import ROOT
from dev.write_client import Document, documents

PACKAGE: Final = ROOT / "clients/typescript"
MAKER: Final = PACKAGE / "node_modules/.bin/openapi-typescript"
FILES: Final = {"command": PACKAGE / "src/commands.ts", "query": PACKAGE / "src/queries.ts"}


def header_of(document: Document) -> str:
    """Returns the first line of the file that is made from a document. It has the hash of the document.

    A new version of Daybook alone changes no type, so the hash leaves it out.
    """
    described = {name: part for name, part in document.items() if name != "info"}
    content = json.dumps(described, sort_keys=True, separators=(",", ":")).encode()
    return f"// Made by `make types` of the OpenAPI document with the SHA-256 {hashlib.sha256(content).hexdigest()}.\n"


def types_of(document: Document) -> str:
    """Returns the content of the file for a document. Needs Node, and the packages in `clients/typescript`."""
    with tempfile.TemporaryDirectory() as made:
        source, target = Path(made, "openapi.json"), Path(made, "types.ts")
        source.write_text(json.dumps(document))
        subprocess.run([MAKER, source, "--output", target], check=True, capture_output=True, text=True)
        return header_of(document) + target.read_text()


if __name__ == "__main__":
    for api, described in documents().items():
        FILES[api].write_text(types_of(described))
