"""A bare `import pluria` loads little."""

import json
import subprocess
import sys

HEAVY = ("matplotlib", "sklearn", "transformers", "numba", "typer", "PIL", "pandas", "scipy", "torchvision", "triton")


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after one statement."""
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_light() -> None:
    loaded = loaded_by("import pluria")
    assert "pluria" in loaded
    assert loaded.isdisjoint((*HEAVY, "torch"))


def test_the_verbs_are_light() -> None:
    verbs = ("align", "language", "pool", "predict", "sample", "score", "store", "wrap")
    assert loaded_by(f"import {', '.join(f'pluria.{verb}' for verb in verbs)}").isdisjoint(HEAVY)


def test_merging_files_is_light() -> None:
    loaded = loaded_by("import pluria.recipe.merging, pluria.recipe.merging.mergekit")
    assert loaded.isdisjoint((*HEAVY, "pydantic"))


def test_a_heavy_import_would_be_seen() -> None:
    assert "PIL" in loaded_by("import pluria, PIL")
