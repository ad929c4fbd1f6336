"""uvicorn's server with limits of its own: connections, deadlines, and HTTP that has one meaning."""
