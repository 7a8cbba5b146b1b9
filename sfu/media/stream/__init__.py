"""What belongs to a published stream or track, whoever receives it: packets kept, levels, voices. Media threads."""
