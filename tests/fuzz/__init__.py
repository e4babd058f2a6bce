"""Random damage against every command: `python -m tests.fuzz --seed 1 --minutes 60`."""
