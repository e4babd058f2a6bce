"""Answers for an assistant: the records of the commands, cut to a budget, with text of the dump kept apart."""
