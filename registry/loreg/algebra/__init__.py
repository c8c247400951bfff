"""Pure tensor functions on low-rank factors: norms, bases, spectra, truncation. No files, no network, no settings."""
