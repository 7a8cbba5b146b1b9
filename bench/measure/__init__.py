"""Runs a scenario against targets: sessions, what is read while one is measured, and what else can be measured."""
