"""Chromium through Playwright, with the system's browser and its fake devices."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from playwright.async_api import Browser, async_playwright

_ARGUMENTS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-gpu",
    "--no-first-run",
)


@contextlib.asynccontextmanager
async def running_chromium(
    *,
    fake_ui: bool = True,
    film: Path | None = None,
    program: Path | None = None,
    home: Path | None = None,
    names: Mapping[str, str] | None = None,
) -> AsyncIterator[Browser]:
    """Start a headless Chromium; with fake_ui False a page is not granted camera and microphone by itself.

    film: what its camera shows, as YUV4MPEG2, again and again; None: Chromium's own test picture.
    program: what to start in place of the system's Chromium, with its arguments; None: that.
    home: the folder below which its store of authorities is (`trust.CHROMIUM_STORE`); None: the user's.
    names: host names that it knows -> their addresses.
    """
    path = program or shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("chromium is not installed")
    arguments = [argument for argument in _ARGUMENTS if fake_ui or argument != "--use-fake-ui-for-media-stream"]
    if film is not None:
        arguments.append(f"--use-file-for-fake-video-capture={film}")
    if names is not None:
        rules = ", ".join(f"MAP {name} {address}" for name, address in names.items())
        arguments.append(f"--host-resolver-rules={rules}")
    async with async_playwright() as playwright:
        env: dict[str, str | float | bool] = {**os.environ, **({"HOME": os.fspath(home)} if home is not None else {})}
        browser = await playwright.chromium.launch(executable_path=path, args=arguments, env=env)
        try:
            yield browser
        finally:
            await browser.close()
