"""What rooms remember because applications said so: settings, dispatched agents, revoked tokens, nonces of packets."""
