"""Memory that could be saved without changing what the program keeps."""
