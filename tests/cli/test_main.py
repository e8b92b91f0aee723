"""The command line's shape: its options are a promise, and `--help` answers at once."""

import resource
import subprocess
import sys

import pytest
import typer

from genrec.cli.main import app
from genrec.version import __version__

COMMON = ["--debug", "--output", "--seed", "--set"]
OPTIONS = {
    "demo": [*COMMON, "--quick"],
    "run": [*COMMON, "--check", "--csv", "RECIPE"],
    "prepare": [*COMMON, "RECIPE"],
    "tokenize": [*COMMON, "RECIPE"],
    "train": [*COMMON, "RECIPE"],
    "evaluate": [*COMMON, "RECIPE"],
    "recommend": [
        *(
            "--at",
            "--behavior",
            "--debug",
            "--exclude-seen",
            "--k",
            "--num-beams",
            "--output",
            "--unknown-items",
            "--user",
            "-k",
        ),
        *("CHECKPOINT", "HISTORIES"),
    ],
    "push": ["--debug", "--license", "--portable", "--public", "FOLDER", "REPO_ID"],
    "init": ["--behaviors", "--debug", "--items", "--recipe", "--yes", "-y", "TABLE"],
    "bench run": [
        *("--allow-other-commit", "--csv", "--debug", "--in-process", "--jobs", "--metrics", "--output", "--seeds"),
        *("--set", "--trial-minutes", "--trials", "--tune", "-j", "RECIPES"),
    ],
    "bench claims": ["--debug", "--min-seeds", "--output", "--runs", "--seeds", "CLAIMS", "FILES"],
    "bench costs": ["--debug", "RUNS"],
    "bench report": [
        *("--against", "--allow-pending", "--debug", "--metric", "--metrics", "--min-seeds", "--models"),
        *("--output", "--runs", "--seeds", "FILES"),
    ],
}
HEAVY = ("torch", "transformers", "ibis", "duckdb", "datasets", "faiss", "sentence_transformers")


def spelled(parameter):
    return parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]


def commands_of(group, before=""):
    """Return every command by its full name, those of groups too."""
    found = {}
    for name, command in group.commands.items():
        inner = commands_of(command, f"{before}{name} ") if hasattr(command, "commands") else {before + name: command}
        found |= inner
    return found


def test_the_options_are_the_ones_we_promised():
    found = {
        name: sorted(option for parameter in command.params for option in spelled(parameter))
        for name, command in commands_of(typer.main.get_command(app)).items()
    }
    assert found == {name: sorted(options) for name, options in OPTIONS.items()}


def test_every_command_and_option_has_help():
    for name, command in commands_of(typer.main.get_command(app)).items():
        assert command.help, name
        assert all(parameter.help for parameter in command.params), name


def imports_of(*arguments):
    """Run `python -m genrec`; return its output, the modules it imported, and the seconds of processor time it took."""
    before = processor_seconds()
    command = [sys.executable, "-X", "importtime", "-m", "genrec", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return result.stdout, {line.rpartition("|")[2].strip() for line in lines}, processor_seconds() - before


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy_and_answers_within_a_second(arguments):
    output, modules, seconds = imports_of(*arguments)
    assert "genrec" in output
    assert not {name for name in HEAVY if name in modules}
    assert seconds < 1


def test_version(genrec):
    assert genrec("--version").stdout == f"genrec {__version__}\n"


def test_without_a_command_the_help_is_shown(genrec):
    assert "Commands:" in genrec().output


def test_an_unknown_option_is_refused(genrec):
    result = genrec("demo", "--quik")
    assert result.exit_code == 2
    assert "--quick" in result.output
