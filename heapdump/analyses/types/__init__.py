"""The types of blocks: content, containers, C++ classes, data structures."""
