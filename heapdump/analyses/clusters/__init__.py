"""Blocks of one structure, learnt from all blocks: what they are where no type information says it."""
