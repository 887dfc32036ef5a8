"""Options come from the fields of a plan: a new field is an option, only what was given is handed on."""

import inspect
import json
from pathlib import Path
from typing import Annotated

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from edgewright.cli.app import app
from edgewright.cli.options import Asked, asks
from edgewright.core.cost import Budget
from edgewright.core.data import Asked as AskedFor
from edgewright.core.errors import BadInput
from edgewright.core.plan import Plan, Resolution
from edgewright.core.written import Floats, Names, Shapes
from edgewright.export.choose.plan import VersusPlan
from edgewright.export.ship.plan import ShipPlan
from edgewright.job.adapt.plan import AdaptPlan
from edgewright.job.codesign.plan import CodesignPlan
from edgewright.job.compress.plan import CompressPlan
from edgewright.job.rank.plan import RankPlan
from edgewright.job.table_search.plan import TableSearchPlan


class Toy(AskedFor):
    version: int = 1
    place: str = Field(description="Where.")
    budget: Budget
    share: float = Field(default=0.5, ge=0, description="Of it.")
    whole: float = Field(default=2.0, description="Of that.")
    rows: int | None = Field(default=None, description="How many [default: as many as there are].")
    tables: tuple[str, ...] = Field(default=(), description="Again and again.")
    words: Names = Field(default=("a", "b"), description="With commas.")
    size: Resolution | None = Field(default=None, description="48x64.")
    shape: Shapes | None = Field(default=None, description="1,2.")
    mean: Floats | None = Field(default=None, description="0.5,0.5.")
    quick: bool = Field(default=False, description="Less well.")


def made(**options):
    """A program of one command, which prints what it was asked for."""
    program = typer.Typer(rich_markup_mode=None, add_completion=False)

    @program.command()
    @asks(Toy, **options)
    def toy(asked: Asked, out: Annotated[Path | None, typer.Option(help="Folder.")] = None, last: bool = False) -> None:
        """Say it."""
        print(json.dumps({"asked": asked, "out": str(out), "last": last}))

    return program


def asked_of(*words: str, **options) -> dict:
    done = CliRunner().invoke(made(**options), list(words))
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_only_what_was_given_is_handed_on_as_the_plan_names_it() -> None:
    assert asked_of("--place", "x") == {"asked": {"place": "x"}, "out": "None", "last": False}
    words = [
        "--rows",
        "3",
        "--macs",
        "1e6",
        "--size-mb",
        "2",
        "--quick",
        "--tables",
        "a",
        "--tables",
        "b",
        "--out",
        "f",
    ]
    found = asked_of("--place", "x", *words, "--words", "c, d", "--size", "48x64")
    wanted = {"place": "x", "budget": {"macs": 1e6, "size_mb": 2.0}, "rows": 3, "tables": ["a", "b"], "quick": True}
    assert found == {"asked": {**wanted, "words": "c, d", "size": "48x64"}, "out": "f", "last": False}
    assert Toy.parse({**found["asked"], "shape": "a=1, 2;b=3"}, "").shape == {"a": (1, 2), "b": (3,)}
    plan = Toy.parse({**found["asked"], "shape": "1, 3,5", "mean": "0.5,1"}, "the options")
    assert (plan.words, plan.size, plan.shape, plan.mean, plan.share) == (
        ("c", "d"),
        (48, 64),
        (1, 3, 5),
        (0.5, 1.0),
        0.5,
    )


def test_help_says_the_description_and_the_default_once() -> None:
    options = {"after": {"": ("last",), "share": ("out",)}, "names": {"rows": ("--lines", "-l")}, "but": ("mean",)}
    told = CliRunner().invoke(made(argument="place", **options), ["--help"]).stdout
    text = " ".join(told.split())
    for words in (
        "Of it [default: 0.5].",
        "Of that [default: 2].",
        "With commas [default: a,b].",
        "place <str> Where.",
    ):
        assert words in text
    assert "How many [default: as many as there are]. " in text
    assert "--mean" not in text and "--version" not in text
    names = [line.split()[0].rstrip(",") for line in told.splitlines() if line.strip().startswith("-")]
    budget = ["--latency-ms", "--size-mb", "--peak-memory-kb", "--macs", "--params", "--energy-mj", "--area-mm2"]
    rest = ["--whole", "-l", "--tables", "--words", "--size", "--shape", "--quick", "--help"]
    assert names == ["--last", *budget, "--share", "--out", *rest]


def test_what_the_plan_needs_the_command_needs_unless_it_may_come_from_elsewhere() -> None:
    missing = CliRunner().invoke(made(), [])
    assert missing.exit_code == 2 and "--place" in missing.stderr
    assert asked_of(optional=True)["asked"] == {}


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("shape", "1,x", "the options: shape takes whole numbers with commas between, not '1,x'"),
        ("mean", "a", "the options: mean takes numbers with commas between, not 'a'"),
        ("size", "4by6", "the options: resolution 4by6: give a side, 64, or height x width, 48x64"),
        ("size", "4x64", "resolution must be from 8 to 512 pixels"),
    ],
)
def test_a_text_that_cannot_be_read_is_one_sentence(field: str, text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Toy.parse({"place": "x", "budget": {"macs": 1}, field: text}, "the options")


COMMANDS = {
    "design": Plan, "adapt": AdaptPlan, "compress": CompressPlan, "export": ShipPlan, "rank": RankPlan,
    "search": TableSearchPlan, "codesign": CodesignPlan, "measure": VersusPlan,
}  # fmt: skip
OTHERWISE = {"schema_version", "memory_bytes"}  # a format's version; bytes are asked for in MB and KB


@pytest.mark.parametrize(("command", "plan"), COMMANDS.items())
def test_every_field_of_a_plan_is_an_option_of_its_command(command: str, plan: type[AskedFor]) -> None:
    known = {parameter.name for parameter in typer.main.get_command(app).commands[command].params}  # pyright: ignore
    fields = set(plan.model_fields) - OTHERWISE
    if "budget" in fields:
        fields = fields - {"budget"} | set(Budget.model_fields)
    assert fields <= known
    assert all(field.description for name, field in plan.model_fields.items() if name not in {*OTHERWISE, "budget"})


def test_commands_ask_for_nothing_by_hand_that_a_plan_has() -> None:
    """Their own parameters are about the command: where it goes, how it is shown, how many processes."""
    own = {
        "asked",
        "out",
        "resume",
        "config",
        "dry_run",
        "as_json",
        "quiet",
        "workers",
        "beside",
        "choose",
        "source",
        "files",
    }
    ceilings = {"memory_mb", "memory_kb", "macs"}  # of adapt, in the units of people
    for name in COMMANDS:
        (command,) = [one.callback for one in app.registered_commands if one.callback and one.callback.__name__ == name]
        mine = set(inspect.signature(inspect.unwrap(command)).parameters)
        assert mine <= own | (ceilings if name == "adapt" else set()), name
