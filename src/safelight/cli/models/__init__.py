"""`safelight model`: what can be served, what would fit, and making a model of files or of fewer bytes."""
