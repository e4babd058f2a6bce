"""The command that writes the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.sample import main


@pytest.mark.parametrize("arguments", [[], ["--help"], ["a.dmp", "-o"], ["a.dmp", "b.dmp", "c.dmp"]])
def test_options_are_no_names_of_files(arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: python -m fixtures.sample ")
    assert list(tmp_path.iterdir()) == []
