"""What an adapter is, told by its content: a sketch of its deltas, and how they relate to those of others."""
