"""The documentation pages of both APIs work without any other server."""

import re

import command_api.app
import query_api.app
from shared.settings import Settings
from tests.harness.clients import client_of


async def test_the_documentation_pages_load_only_what_the_api_itself_serves(settings: Settings) -> None:
    for api in (command_api.app, query_api.app):
        async with client_of(api.create_app(settings)) as client:
            for page in ("/docs", "/redoc"):
                answer = await client.get(page)
                loaded = re.findall(r"""(?:src|href|spec-url)=["']([^"']+)["']|url: '([^']+)'""", answer.text)
                names = {one or other for one, other in loaded}
                assert len(names) >= 3, answer.text
                assert "//" not in answer.text.replace("<!--", "")
                for name in names:
                    found = await client.get(f"/{name}")
                    assert (found.status_code, len(found.content) > 1_000) == (200, True), name
                assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert (await client.get("/docs/..%2f__init__.py")).status_code == 404
            assert (await client.get("/docs/core.py")).json()["code"] == "not-found"
