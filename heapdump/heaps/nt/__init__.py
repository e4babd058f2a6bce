"""The NT heap, from XP to 11: back end, front ends, large blocks."""
