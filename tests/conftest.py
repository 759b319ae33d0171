"""Fixtures that many tests share."""

from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real weights, tokenizers, templates and configs; not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data, which is not here")
    return SHARED_DATA
