"""How much each subscriber's path carries: the estimate, and probes for it. Media threads."""
