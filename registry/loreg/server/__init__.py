"""The HTTP service: parse, ask the ledger, answer."""
