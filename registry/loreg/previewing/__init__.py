"""What a merge would keep and lose, from small matrices that are computed once: no weights are read again, no torch."""
