"""The house, enforced: imports point one way, a model folder travels alone, nothing of ours shadows a dependency."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "genrec"
LAYERS = [  # a layer may import itself and the layers before it in this list
    "lazy",
    "version",
    "files",
    "presets",
    "data",
    "embedders",
    "item_tokenizers",
    "models",
    "generation",
    "recommender",
    "evaluation",
    "training",
    "hub",
    "cli",
    "__main__",
]
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
HEAVY = ["ibis", "duckdb", "datasets", "faiss", "sentence_transformers", "sklearn", "pandas", "pyarrow.parquet"]


def imported_names(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            names += deeper if node.module == "genrec" else [node.module]
    return names


def is_exception(module: Path, name: str) -> bool:
    """`genrec/generation/trie.py` imports nothing of ours, so item tokenizers may hand out a trie."""
    return module.parts[0] == "item_tokenizers" and name == "genrec.generation.trie"


@pytest.mark.parametrize("module", [module for module in MODULES if module != Path("__init__.py")], ids=str)
def test_imports_point_one_way(module):
    layer = LAYERS.index(module.parts[0].removesuffix(".py"))
    for name in imported_names(PACKAGE / module):
        if name.startswith("genrec.") and not is_exception(module, name):
            assert LAYERS.index(name.split(".")[1]) <= layer, f"genrec/{module} must not import {name}"


def test_the_trie_imports_nothing_of_ours():
    assert not [name for name in imported_names(PACKAGE / "generation" / "trie.py") if name.startswith("genrec")]


SHARED_BY_MODELS = {"genrec.models.gamer.checked_config", "genrec.models.gamer.generation_defaults"}


@pytest.mark.parametrize("folder", [path for path in (PACKAGE / "models").iterdir() if (path / "__init__.py").exists()])
def test_a_model_folder_stands_alone(folder):
    """GAMER's is published with its code and must have all in it; the others may take from it what all models share."""
    allowed = set() if folder.name == "gamer" else SHARED_BY_MODELS
    for path in folder.glob("*.py"):
        ours = {name for name in imported_names(path) if name.split(".")[0] == "genrec"} - allowed
        assert not ours, f"{path} must import only its siblings, relatively, not {ours}"
        climbing = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level > 1
        ]
        assert not climbing, f"{path} must not import from outside its folder"


@pytest.mark.parametrize("name", ["tokenizers", "datasets", "evaluate", "transformers"])
def test_no_folder_shadows_a_dependency(name):
    assert not (PACKAGE.parent / name / "__init__.py").exists(), f"{name}/__init__.py would shadow the package {name}"
    assert not (PACKAGE.parent / f"{name}.py").exists()


def test_no_file_is_called_utils():
    assert not [module for module in MODULES if "util" in module.name]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_genrec_stays_light():
    loaded = run_python(f"import sys, genrec; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_models_generation_recommender_and_training_need_no_data_packages():
    blocked = dict.fromkeys(["ibis", "duckdb", "datasets", "faiss", "sentence_transformers", "pyarrow"])
    code = f"""
import sys; sys.modules.update({blocked})
import genrec
from genrec import GamerForCausalLM, GenerativeRecommender, GenRecTrainer, ItemTrie, constrained_beam_search, evaluate
from genrec.item_tokenizers import AutoItemTokenizer, ChunkedIDTokenizer
print("fine")
"""
    assert run_python(code).strip() == "fine"


def test_importing_genrec_adds_at_most_half_a_second_to_importing_qwen3():
    code = """
import time
from transformers import Qwen3ForCausalLM, AutoModelForCausalLM
start = time.perf_counter()
import genrec
print(time.perf_counter() - start)
"""
    assert min(float(run_python(code)) for _ in range(2)) < 0.5


def test_every_public_name_can_be_imported():
    import genrec

    for name in genrec.__all__:
        assert getattr(genrec, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Gamer'"):
        genrec.Gamer  # noqa: B018
