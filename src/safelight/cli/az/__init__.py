"""The verbs of `az ml`: models, connections, online endpoints and deployments of a running server."""
