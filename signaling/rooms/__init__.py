"""Rooms and participants: what clients ask for, what they are told of each other, and when it ends. Control thread."""
