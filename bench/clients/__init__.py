"""Participants of the load generator: ICE, DTLS and SRTP, session descriptions, and the signalling of each system."""
