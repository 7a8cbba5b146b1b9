"""Runs scenarios against targets: sessions, the readings of a window, memory growth, profiles."""
