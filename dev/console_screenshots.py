"""Takes the pictures of `docs/console.md`: `make screenshots`. Runs a stack of its own, with the seeded ledger."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import Page, async_playwright

from dev.data_folder import RunningStack
from dev.detached_stack import end_stack, start_detached
from dev.seed import ADAS_EUROS, GRACES_EUROS
from dev.stack import StackOptions
from shared.errors import StackError

FOLDER: Final = Path(__file__).parents[1] / "docs/console"
SIZE: Final = {"width": 960, "height": 620}
PLACES: Final = {
    "overview": "overview",
    "account": f"accounts/{ADAS_EUROS}",
    "event": "events/8",
    "read-model": "read-models/balances",
    "command": f"commands/transfer?from_account_id={ADAS_EUROS}&to_account_id={GRACES_EUROS}&amount=12.50&currency=EUR",
}


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise StackError("there is no Chromium on PATH: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        options = StackOptions(Path(folder), command_port=0, query_port=0)
        running = start_detached(options)
        try:
            asyncio.run(_take(running, chromium))
        finally:
            end_stack(options.folder)


async def _take(running: RunningStack, chromium: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(viewport=SIZE)  # type: ignore[arg-type]  # a plain dictionary
        await page.goto(f"{running.environment['DAYBOOK_QUERY_URL']}/console")
        await page.get_by_label("API key", exact=True).fill(running.environment["DAYBOOK_API_KEY"])
        await page.get_by_role("button", name="Use this key").click()
        await page.locator("#pages a").first.wait_for()
        for name, place in PLACES.items():
            await _show(page, place)
            await page.screenshot(path=FOLDER / f"{name}.png")
        await browser.close()


async def _show(page: Page, place: str) -> None:
    await page.evaluate("place => { location.hash = place }", f"#/{place}")
    await page.locator(".content:not([aria-busy])").wait_for()
    if place.startswith("accounts/"):
        await page.locator(".plot").evaluate("plot => plot.scrollIntoView({block: 'center'})")
    if place.startswith("commands"):
        await page.get_by_role("button", name="Try it").click()
        await page.locator(".result").scroll_into_view_if_needed()
    await page.wait_for_timeout(500)  # plots are drawn after the page


if __name__ == "__main__":
    main()
