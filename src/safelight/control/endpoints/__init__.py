"""Endpoints and their deployments: what they are to be, how they become it, and what they log."""
