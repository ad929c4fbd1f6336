"""What is drawn and what is said of it: artwork, scenes, captions, tokens."""
