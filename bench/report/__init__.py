"""Tables, pages and comparisons of what was measured. Nothing here measures."""
