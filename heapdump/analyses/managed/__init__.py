"""Managed code and its heap: what lies at an address, and who points to it."""
