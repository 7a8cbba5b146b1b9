"""Webhooks: what happens in rooms, posted to applications as livekit-server posts it."""
