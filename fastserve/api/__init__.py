"""The HTTP APIs: bytes of a body in, a domain request out, bytes back. Pure."""
