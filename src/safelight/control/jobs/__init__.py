"""Requests that outlive their connection, and the webhooks that tell of them."""
