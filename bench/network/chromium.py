"""A viewer that is livekit-client in Chromium: `python -m bench.network.chromium URL TOKEN`; else like the native one.

Needs the packages playwright and livekit-client; LIVEKIT_CLIENT names the latter's `livekit-client.umd.js`, which is
looked for among the tests' packages otherwise.
"""

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

from bench.network import client
from bench.network.picture import BLOCK, CHECK_BITS, TIME_BITS, WIDTH, WRAP_MS
from bench.network.viewer import INTERVAL_S

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "tests/clients/web/node_modules/livekit-client/dist/livekit-client.umd.js"
PAGE = Path(__file__).with_suffix(".js")
CODE = {"width": WIDTH, "blocks": TIME_BITS + CHECK_BITS, "block": BLOCK, "checkBits": CHECK_BITS}
ARGUMENTS = ("--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-gpu", "--mute-audio")
NAMES = {
    "ssrc": "ssrc",
    "bytes": "bytesReceived",
    "packets": "packetsReceived",
    "lost": "packetsLost",
    "again": "retransmittedPacketsReceived",
    "nacks": "nackCount",
    "total_samples_received": "totalSamplesReceived",
    "concealed_samples": "concealedSamples",
    "silent_concealed_samples": "silentConcealedSamples",
    "concealment_events": "concealmentEvents",
    "frames_decoded": "framesDecoded",
    "key_frames_decoded": "keyFramesDecoded",
    "pli_count": "pliCount",
    "freeze_count": "freezeCount",
    "total_freeze_duration": "totalFreezesDuration",
}
"""The native viewer's name of each statistic, and that of getStats."""


def _facts(stream: dict[str, Any]) -> dict[str, Any]:
    return {name: stream.get(theirs, 0) for name, theirs in NAMES.items()}


async def _report(page: Page) -> None:
    due = time.monotonic()
    while True:
        told = await page.evaluate("collect()")
        ahead = time.monotonic() - told["now"] / 1000
        facts = {kind: _facts(stream) for kind, stream in told["streams"].items()}
        pictures = []
        for at, height, taken in told["pictures"]:
            shown = at / 1000 + ahead
            age = None if taken is None else (int(1000 * shown) - taken) % WRAP_MS
            pictures.append((shown, height, age))
        client.say(**facts, pictures=pictures)
        due = max(due + INTERVAL_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def main(url: str, token: str) -> None:
    """Receive until standard input ends."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = await browser.new_page(viewport={"width": WIDTH, "height": WIDTH})
        await page.add_script_tag(path=os.environ.get("LIVEKIT_CLIENT", LIBRARY))
        await page.add_script_tag(path=PAGE)
        joined = asyncio.create_task(
            page.evaluate("([url, token, code]) => join(url, token, code)", [url, token, CODE])
        )
        reporting = asyncio.create_task(_report(page))
        async for _ in client.commands():
            pass
        for task in (joined, reporting):
            task.cancel()
        await asyncio.gather(joined, reporting, return_exceptions=True)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
