"""What blocks are: content, containers, C++ classes, data structures."""
