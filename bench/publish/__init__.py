"""Measures what is published, section by section, and writes the document."""
