"""From one request to the process that makes its picture, and back: dispatcher, replicas, and the loop inside them."""
