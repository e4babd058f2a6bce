"""Prints constraints that pin every dependency to the lowest version that `pyproject.toml` allows.

`make test-oldest` installs them: python -m tests.tools.lower_bounds > constraints.txt
"""

from __future__ import annotations

from tests.tools.project import dependencies


def constraints() -> str:
    """A line for each dependency, extras too."""
    return "".join(f"{one.name}=={one.least}\n" for one in dependencies())


if __name__ == "__main__":
    print(constraints(), end="")
