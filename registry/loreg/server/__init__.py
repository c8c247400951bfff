"""The HTTP service: parse, ask the backend, answer."""
