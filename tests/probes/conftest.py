"""The server that asks for tokens, as the server's own tests have it."""

from server.conftest import guarded

__all__ = ["guarded"]
