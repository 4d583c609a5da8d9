"""Reading a user's files: which images there are, decoding them ahead of the network, and writing what it says."""
