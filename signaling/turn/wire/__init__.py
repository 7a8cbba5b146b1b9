"""Bytes of TURN and of streams without state: STUN messages, ChannelData, frames."""
