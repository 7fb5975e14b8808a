"""Schemathesis against the server's own OpenAPI document."""
