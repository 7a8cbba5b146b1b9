"""Measures forwarding: load generator, the floor that no server can beat, reports. Never imported by the others."""
