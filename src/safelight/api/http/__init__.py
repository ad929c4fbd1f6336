"""What every dialect needs of HTTP: bodies, headers, links, streams."""
