"""The server that nobody has to start: a SQLite file that speaks the wire protocol."""
