"""Registers, unwinding, call stacks of threads, and the stack trace database."""
