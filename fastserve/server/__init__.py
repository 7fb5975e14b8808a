"""The server: processes, connections, and the HTTP between them and an application."""
