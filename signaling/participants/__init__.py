"""Participants: what each may do, publishes and receives, and how its requests reach it."""
