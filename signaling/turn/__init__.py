"""What clients need to reach this server through a relay: credentials, and the list of servers that they are told."""
