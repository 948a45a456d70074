"""Serves the documentation pages, with scripts and styles that are installed with Daybook. No page loads anything from elsewhere.

The files are those of Swagger UI and ReDoc, from the package `fastapi-offline`. All addresses are relative, so that pages work
below a path of a proxy too.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse

from shared.errors import NotFound

_FOLDER: Final = Path(str(files("fastapi_offline") / "static"))
_MEDIA_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}
_OPENAPI: Final = "openapi.json"


def add_documentation(app: FastAPI) -> None:
    """Adds `/docs`, `/redoc` and the files that these pages load."""

    async def swagger() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=_OPENAPI,
            title=app.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},  # otherwise the page sends its address to a validator on the internet
        )

    async def redoc() -> HTMLResponse:
        return get_redoc_html(
            openapi_url=_OPENAPI,
            title=app.title,
            redoc_js_url="docs/redoc.standalone.js",
            redoc_favicon_url="docs/favicon.png",
            with_google_fonts=False,
        )

    app.add_api_route("/docs", swagger, include_in_schema=False)
    app.add_api_route("/redoc", redoc, include_in_schema=False)
    app.add_api_route("/docs/{name}", _file, include_in_schema=False)


async def _file(name: str) -> FileResponse:
    if name not in _MEDIA_TYPES:
        raise NotFound
    return FileResponse(_FOLDER / name, media_type=_MEDIA_TYPES[name])
