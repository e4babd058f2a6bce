"""The picture of the README is what `triage` prints about the sample now, and needs nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.picture import picture

PICTURE = Path(__file__).parent.parent / "docs" / "triage.svg"


@pytest.mark.golden
def test_the_picture_is_current_and_fetches_nothing():
    drawn = picture()
    assert drawn == PICTURE.read_text(encoding="utf-8"), "make picture"
    assert not re.search(r"url\(|@import|<image|xlink", drawn.replace("url(#", ""))
