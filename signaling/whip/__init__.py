"""Participants without a WebSocket: they publish by WHIP (RFC 9725) or play by WHEP (draft-ietf-wish-whep)."""
