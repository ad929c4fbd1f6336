"""Replicas on the nodes of a Ray cluster. Only this room imports Ray."""
