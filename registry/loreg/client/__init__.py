"""A registry behind HTTP: the same ledger and store as on this machine, asked over the network."""
