"""One linear layer for K members at a time, with the shared weights read once."""
