"""How much each subscriber's path carries, and what it is sent of that: estimate and allocation. Media threads."""
