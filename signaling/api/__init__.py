"""LiveKit's server API: calls by which an application's backend manages rooms and participants."""
