"""A real browser for tests of the console: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, Response, async_playwright

from tests.harness.engines import needs

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS: Final = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
]
AXE: Final = files("axe_playwright_python") / "axe.min.js"

needs_chromium = needs("chromium", "there is no Chromium on PATH: apt-get install chromium", is_there=CHROMIUM is not None)


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


class Watched:
    """A page of the console, with everything that went wrong on it: errors of scripts, refused loads, failed requests."""

    def __init__(self, page: Page, query_url: str) -> None:
        self.page = page
        self.query_url = query_url
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", self._fail)
        page.on("request", self._count)
        page.on("response", self._note)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.problems.append(said.text)

    def _fail(self, error: Error) -> None:
        self.problems.append(str(error))

    def _count(self, request: Request) -> None:
        self.requests.append(request.url)

    def _note(self, response: Response) -> None:
        if response.status >= HTTPStatus.BAD_REQUEST:
            self.problems.append(f"{response.status} {response.url}")

    async def log_in(self, key: str) -> None:
        await self.page.goto(f"{self.query_url}/console")
        await self.page.get_by_label("API key", exact=True).fill(key)
        await self.page.get_by_role("button", name="Use this key").click()
        await self.page.locator("#pages a").first.wait_for()
        await self.shown()

    async def log_in_as_user(self, email: str, password: str) -> None:
        await self.page.goto(f"{self.query_url}/console")
        await self.page.get_by_label("E-mail address").fill(email)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.locator("#pages a").first.wait_for()
        await self.shown()

    async def open(self, place: str) -> None:
        """Opens a page of the console by the part of its address after `#/`."""
        await self.page.evaluate("place => { location.hash = place }", f"#/{place}")
        await self.shown()

    async def shown(self) -> None:
        await self.page.locator(".content:not([aria-busy])").wait_for()

    async def names_of_pages(self) -> list[str]:
        return await self.page.locator("#pages a").all_inner_texts()

    async def violations(self) -> list[str]:
        """What axe finds: each rule that the page breaks, with the elements that break it.

        axe runs through the protocol of the debugger, because the page's own policy lets no other script in.
        """
        session = await self.page.context.new_cdp_session(self.page)
        await session.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
        found: dict[str, Any] = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        await session.detach()
        assert found["passes"], "axe looked at nothing"
        return [f"{rule['id']}: {[node['html'][:200] for node in rule['nodes']]}" for rule in found["violations"]]


async def watched(browser: Browser, query_url: str, **options: Any) -> Watched:
    """Returns a new page in a context of its own. `options` are those of a context of Playwright."""
    context = await browser.new_context(**options)
    return Watched(await context.new_page(), query_url)
