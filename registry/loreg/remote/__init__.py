"""A registry behind HTTP: the same backend and store as on this machine, asked over the network."""
