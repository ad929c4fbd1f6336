"""The door where a request becomes a job, and what sends it again later."""
