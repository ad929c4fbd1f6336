"""The ARM surface that `azure-ai-ml` and the command line speak: connections, endpoints, deployments, the registry."""
