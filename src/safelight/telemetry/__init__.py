"""What is seen from outside: the names that a request has in logs and traces, the log's lines, and spans."""
