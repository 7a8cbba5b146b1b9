"""What a subscriber is sent of what its path carries: costs of layers, and how bandwidth is shared. Media threads."""
