"""Examples meet a real server and a real browser, as the client tests do."""

from tests.clients.conftest import browsers, chromium, own_network, room, screenshots, server

__all__ = ["browsers", "chromium", "own_network", "room", "screenshots", "server"]
