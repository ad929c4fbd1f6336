"""The page that a browser sees: its built files, and what it must know of the model."""
