"""Serves the test page and livekit-client from loopback, so that browsers treat it as a secure context."""

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

WEB = Path(__file__).parent / "web"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a test's output is the test's."""


@contextlib.contextmanager
def serving_pages(page: Path = WEB / "client.html") -> Iterator[str]:
    """Serve a page and what lies beside it; yields its address."""
    handler = functools.partial(_Quiet, directory=str(page.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{page.name}"
        server.shutdown()
        thread.join()
