"""What other programs load: loreg inside a server of models."""
