"""What waits for its path, and when it leaves: the pacer. Media threads."""
