"""The command line: serve, generate, model."""
