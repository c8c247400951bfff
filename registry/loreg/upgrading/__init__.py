"""What becomes of adapters when their base is upgraded: which tensors they touch have changed, and how far."""
