"""`safelight bench`: load on any server of pictures, and what came of it."""
