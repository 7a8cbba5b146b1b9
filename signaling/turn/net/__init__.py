"""The sockets of the TURN thread: clients over UDP, TCP and TLS, their ways to the media, and the loop over them."""
