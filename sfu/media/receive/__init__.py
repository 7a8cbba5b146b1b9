"""From a decrypted packet to a stored one: whose it is, what is missing, what is counted. Media threads."""
