"""From a stored packet to each subscriber: layers, numbers, timestamps, rewriting, repeats, relays. Media threads."""
