"""Pure tensor functions on factors: canonical form, truncation, Gram. No files, no network, no configuration."""
