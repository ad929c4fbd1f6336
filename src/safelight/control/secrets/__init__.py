"""Connections and keys: encrypted at rest, read only by who may."""
