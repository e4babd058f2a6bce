"""Adds what a wheel has beside the package: pages of the manual, made of the help of the commands."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

from heapdump.cli.manual import write_pages  # needs the path

setup(data_files=[("share/man/man1", write_pages(Path("build/man")))])
