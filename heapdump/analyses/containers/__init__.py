"""Containers of libraries whose elements are many blocks: one file for each way of holding them."""
