"""What is run in part is run in full by ``make fuzz``."""

from __future__ import annotations

from pathlib import Path

from tests.selection import THINNED

ROOT = Path(__file__).parents[1]


def test_what_is_thinned_is_run_in_full_by_make_fuzz() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nfuzz: ")[2].partition("\n\n")[0]
    places = [word for word in recipe.split() if word.startswith("tests/")]
    for name in THINNED:
        file, _, test = f"tests/{name}".partition("::")
        assert any(file.startswith(place) for place in places), file
        assert f"def {test}(" in (ROOT / file).read_text(), name
