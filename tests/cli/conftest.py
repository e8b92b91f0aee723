"""A plain CSV of 200 rows with three behaviors, a recipe that is done with it in seconds, and one finished run."""

import csv
import random
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from genrec.cli.main import app

SETTINGS = {
    "name": "shop",
    "data": {
        "behaviors": "view,cart,buy",
        "user_column": "user",
        "item_column": "product",
        "behavior_column": "event",
        "time_column": "time",
    },
    "embedder": {"name": "collaborative", "dim": 8},
    "item_tokenizer": {"name": "rqkmeans", "codebook_sizes": [8, 8]},
    "model": {"preset": "gamer-tiny", "hidden_size": 16, "intermediate_size": 32, "max_history_items": 12},
    "training": {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "ranking_num_beams": 10,
    },
    "evaluation": {"num_bootstrap": 20, "num_beams": 10},
}


def write_log(path):
    """Write 200 rows: 12 users, 25 products, sessions a day apart."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "product", "event", "time"])
        for row in range(200):
            user, step = row % 12, row // 12
            session, place = divmod(step, 3)
            event = draw.choices(["view", "cart", "buy"], [6, 3, 2])[0]
            writer.writerow([f"u{user}", draw.randint(1, 25), event, 1_700_000_000 + session * 86_400 + place * 60])
    return path


@pytest.fixture
def settings(tmp_path):
    """The recipe's sections, for tests that change one; the log lies in `tmp_path`."""
    copied = yaml.safe_load(yaml.safe_dump(SETTINGS))
    copied["data"]["interactions"] = str(write_log(tmp_path / "shop.csv"))
    copied["output"] = str(tmp_path / "run")
    return copied


@pytest.fixture
def write(tmp_path):
    """Write sections as a recipe file and return its path."""

    def write_recipe(sections, name="shop.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(sections))
        return str(path)

    return write_recipe


@pytest.fixture
def genrec():
    """Run the command in this process."""

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of both splits, not to be written to; `output` has what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    sections = yaml.safe_load(yaml.safe_dump(SETTINGS))
    sections["data"]["interactions"] = str(write_log(folder / "shop.csv"))
    (folder / "shop.yaml").write_text(yaml.safe_dump(sections))
    options = {"--output": folder / "run", "--csv": folder / "figures.csv"}
    arguments = [str(part) for option in options.items() for part in option]
    result = CliRunner().invoke(app, ["run", str(folder / "shop.yaml"), *arguments, "--debug"])
    assert result.exit_code == 0, result.output
    return Finished(folder, result.stdout)


class Finished:
    """A finished run and what its command printed."""

    def __init__(self, folder: Path, stdout: str) -> None:
        self.folder, self.stdout = folder, stdout
        self.run, self.recipe = folder / "run", folder / "shop.yaml"

    def copy_to(self, folder: Path) -> Path:
        """Return a copy of the run folder, for a test that changes it."""
        shutil.copytree(self.run, folder)
        return folder
