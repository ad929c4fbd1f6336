"""The weights of networks: as they lie in files, as they are kept, and how a network is filled with them."""
