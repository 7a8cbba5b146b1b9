"""Datagrams and who they belong to: sockets, address pairs, connectivity checks, SRTP, hash tables. Media threads."""
