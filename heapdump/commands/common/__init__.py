"""Shared by commands: options, input, output, and columns of records."""
