"""What a model is, where it comes from and what it can do, without torch."""
