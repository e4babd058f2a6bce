"""Blocks selected, located, searched."""
