"""Inside a replica: the loop, the batcher, and the requests in flight."""
