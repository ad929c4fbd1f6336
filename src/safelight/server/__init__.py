"""The HTTP application: composition, keys, errors, health, metrics; and the process that serves it."""
