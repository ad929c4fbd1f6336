"""Where replicas run: their protocol, the requests that each has in flight, and processes of this machine."""
