"""The pictures that come in: what they are, what their sender sees, and the size that is asked for."""
