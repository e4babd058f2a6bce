"""Clusters: blocks of one structure, found by their words, where no type information names them."""
