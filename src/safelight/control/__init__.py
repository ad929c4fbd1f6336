"""The control plane: which models there are (connections, endpoints and deployments follow)."""
