"""Serves the console at `/console`: one page and the modules that it loads. Nothing is loaded from elsewhere.

The page holds no data. Its modules ask the two APIs with the credential of the person who uses it, so the console shows nobody
more than the APIs do. All addresses are relative, so that it works below a path of a proxy too.
"""

from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from starlette.responses import FileResponse, HTMLResponse

from shared.errors import NotFound
from shared.settings import Settings
from shared.web.envelope import set_content_policy

FOLDER: Final = Path(str(files("query_api.console") / "static"))
_MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FILES: Final = {path.name: _MEDIA_TYPES[path.suffix] for path in FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}
_PAGE: Final = Template((FOLDER / "console.html").read_text(encoding="utf-8"))


def content_policy(command_url: str) -> str:
    """Returns the policy of the page: its own files, no inline script or style, and requests to the two APIs only."""
    command_api = urlsplit(command_url)
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {command_api.scheme}://{command_api.netloc}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def add_console(app: FastAPI, settings: Settings) -> None:
    """Adds `/console` and the files that it loads."""
    page = _PAGE.substitute(command_url=escape(settings.command_url), environment=escape(settings.environment))
    policy = content_policy(settings.command_url)

    async def console(request: Request) -> HTMLResponse:
        set_content_policy(request, policy)
        return HTMLResponse(page)

    app.add_api_route("/console", console, include_in_schema=False)
    app.add_api_route("/console/{name}", _file, include_in_schema=False)


async def _file(name: str) -> FileResponse:
    if name not in _FILES:
        raise NotFound
    return FileResponse(FOLDER / name, media_type=_FILES[name])
