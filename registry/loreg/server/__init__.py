"""The HTTP server: parse a request, ask the backend, answer."""
