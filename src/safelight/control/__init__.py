"""The control plane: what should be, in a database, and the reconciler that makes it so."""
