"""What a TURN server decides, without sockets: who may have an allocation, with which credentials, for how long."""
