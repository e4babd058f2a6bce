"""Known formats of data, told by signature and validated header: images, archives, programs, documents, keys, text.

`recognise.py` is the front door. Every other file is a table of `Format`; a new format is a row in one of them.
"""
