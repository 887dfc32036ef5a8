"""The house keeps its word: commands in the docs exist, versions agree, the catalogue is true, files stay small."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main

import edgewright
from edgewright.cli.app import app
from test_imports import SOURCE, method_folder, modules

REPO = SOURCE.parent.parent
PAGES = [REPO / "README.md", REPO / "AGENTS.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
CODE = [path for place in ("src", "tests", "benchmarks", "examples") for path in sorted((REPO / place).rglob("*.py"))]

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
# What may be longer, and why: "path" for a file, "path::function" for a function.
LONGER: dict[str, str] = {}


@cache
def tracked() -> tuple[Path, ...]:
    """The files that git keeps; skips where this is no checkout."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return tuple(path for name in listed.split("\0") if name and (path := REPO / name).is_file())


def commands(text: str, program: str) -> Iterator[list[str]]:
    """The words after `program` in each line of the code blocks (fenced or indented) and in each `inline` snippet."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)", text, flags=re.MULTILINE) + re.findall(rf"`({program} [^`\n]+)`", text)
    for line in lines:
        words = line.split("#")[0].removeprefix("$ ").split()
        if words and words[0] == program:
            yield words[1:]


def test_commands_are_found() -> None:
    text = "    edgewright design --out x  # note\n\n`edgewright bench x`\n```\nedgewright spaces\n```\n"
    assert list(commands(text, "edgewright")) == [["spaces"], ["design", "--out", "x"], ["bench", "x"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist(page: Path) -> None:
    cli = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for words in commands(page.read_text(), "edgewright"):
        if words[0].startswith("-"):
            assert words[0] == "--help", f"{page.name}: edgewright {words[0]}"
            continue
        assert words[0] in cli, f"{page.name}: there is no command `edgewright {words[0]}`"
        command = cli[words[0]]
        for inner in words[1:2]:
            command = getattr(command, "commands", {}).get(inner, command)  # of a group
        known = {"--help"} | {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        unknown = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} - known
        assert not unknown, f"{page.name}: `edgewright {' '.join(words)}`: no option {sorted(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_in_the_docs_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), flags=re.MULTILINE))
    for words in commands(page.read_text(), "make"):
        wanted = [word for word in words if "=" not in word]
        assert set(wanted) <= targets, f"{page.name}: make {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target} does not exist"


def test_versions_agree() -> None:
    declared = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    assert edgewright.__version__ == declared
    assert f"## {declared}" in (REPO / "CHANGELOG.md").read_text()


CATALOGUE = (REPO / "docs" / "systems.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in CATALOGUE.splitlines()
    if line.startswith("| ") and not line.startswith("| method ")
]


def test_catalogue_rows_are_built_or_planned() -> None:
    assert len(ROWS) >= 150
    rooms = {"task", "device", "model", "space", "backward", "proxy", "supernet", "train", "compress", "dynamic",
             "graph", "robust", "search", "export"}  # fmt: skip
    for row in ROWS:
        assert len(row) == 5, f"a row has five cells: {row}"
        method, where = row[0], row[4]
        if where.startswith("planned: "):
            assert where.removeprefix("planned: ") in rooms, f"{method}: no room {where!r}"
        else:
            assert (SOURCE / where.strip("`")).is_file(), f"{method}: {where} does not exist"


def test_catalogue_lists_no_method_twice() -> None:
    names = [row[0].lower() for row in ROWS]
    assert not {name for name in names if names.count(name) > 1}


def test_every_paper_and_every_method_file_is_in_the_catalogue() -> None:
    numbers = {row[2] for row in ROWS if row[2]}
    built = {row[4].strip("`") for row in ROWS}
    missing = []
    known = modules(SOURCE)
    for module in known.values():
        text = module.path.read_text()
        cited = set(re.findall(r"arXiv:(\d{4}\.\d{4,5})", text))
        missing += [f"{module.path}: arXiv:{number} is in no table of docs/systems.md" for number in cited - numbers]
        if _is_published(method_folder(module, known)) and str(module.path.relative_to(SOURCE)) not in built:
            missing.append(f"{module.path}: a method file without a row in docs/systems.md")
    assert not missing, "\n".join(missing)


def _is_published(folder: str | None) -> bool:
    """Of a method file, whether it is a paper's: kinds of task, sources, runtimes and report parts are ours."""
    return folder is not None and folder not in (
        "task.kinds",
        "task.sources",
        "export.runtimes",
        "report.parts",
        "start.sources",
    )


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines with code: without the docstring, comments and blanks."""
    skip: set[int] = set()
    if ast.get_docstring(function, clean=False) is not None:
        skip = set(range(function.body[0].lineno, (function.body[0].end_lineno or 0) + 1))
    span = range(function.lineno, (function.end_lineno or 0) + 1)
    return sum(1 for n in span if n not in skip and lines[n - 1].strip() and not lines[n - 1].lstrip().startswith("#"))


def oversized() -> dict[str, str]:
    found = {}
    for path in CODE:
        name, text = str(path.relative_to(REPO)), path.read_text()
        lines = text.splitlines()
        if len(lines) > MOST_FILE_LINES:
            found[name] = f"{name}: {len(lines)} lines, at most {MOST_FILE_LINES}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = _code_lines(node, lines)
                if length > MOST_FUNCTION_LINES:
                    rule = f"{length} lines of code in {node.name}, at most {MOST_FUNCTION_LINES}"
                    found[f"{name}::{node.name}"] = f"{name}:{node.lineno}: {rule}"
    return found


def test_files_and_functions_are_short() -> None:
    found = oversized()
    wrong = [text for name, text in found.items() if name not in LONGER]
    assert not wrong, "\n".join(["split it, or name it in LONGER with the reason:", *wrong])
    assert set(LONGER) <= set(found), "an exception that is no longer needed"


MOST_PARAMETERS = 8


def crowded() -> dict[str, int]:
    """Public functions, methods and constructors that take more parameters than MOST_PARAMETERS, by "path::name"."""
    found = {}
    for module in modules(SOURCE).values():
        classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef)]
        for holder, inside in [("", module.tree.body), *((f"{one.name}.", one.body) for one in classes)]:
            for node in inside:
                public = isinstance(node, ast.FunctionDef) and (node.name[0] != "_" or node.name == "__init__")
                if not public or module.room == "cli":
                    continue
                assert isinstance(node, ast.FunctionDef)
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                rest = [one for one in (node.args.vararg, node.args.kwarg) if one]
                count = len([one for one in [*taken, *rest] if one.arg not in ("self", "cls")])
                if count > MOST_PARAMETERS:
                    found[f"{module.path.relative_to(SOURCE)}::{holder}{node.name}"] = count
    return found


def test_public_functions_take_few_parameters() -> None:
    assert not crowded(), f"at most {MOST_PARAMETERS}: what belongs together becomes a value"


# Names that other libraries do not promise to keep stand in one file, each with what is done without it.
PRIVATE = "core/private.py"
UNPROMISED = ("onnxruntime.quantization.registry", "torch.fx.graph.CodeGen")
MEANT = {"_exit", "_replace"}  # documented under these names: of `os`, and of every named tuple


def foreign_private(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what a module takes from elsewhere though it begins with an underscore, or is `UNPROMISED`."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))} | MEANT
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)  # a field of a dataclass
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            own.add(node.value)  # setattr, and the slots of a class
    for node in ast.walk(tree):
        taken: list[str] = []
        if isinstance(node, ast.ImportFrom):
            taken = [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            taken = [name.name for name in node.names]
        elif isinstance(node, ast.Attribute) and node.attr not in own and ast.unparse(node.value) != "self":
            taken = [node.attr]
        for name in taken:
            parts = [part for part in name.split(".") if not (part.startswith("__") and part.endswith("__"))]
            if any(part.startswith("_") for part in parts) or name.startswith(UNPROMISED):
                yield node.lineno, name


def test_private_names_of_others_stand_in_one_file() -> None:
    found = [
        module.at(line, f"{name} (take what is public, or add it to {PRIVATE})")
        for module in modules(SOURCE).values()
        if module.path != SOURCE / PRIVATE
        for line, name in foreign_private(module.tree)
    ]
    assert not found, "\n".join(found)
    named = {name for _, name in foreign_private(ast.parse((SOURCE / PRIVATE).read_text()))}
    assert {"_linear_pointwise", "onnxruntime.quantization.registry.QDQRegistry"} <= named


@pytest.mark.parametrize(
    "line",
    [
        "from torch.utils import _pytree", "import torch._dynamo as d",
        "from torch.nn.modules.batchnorm import _BatchNorm",
        "x = tensor.untyped_storage()._cdata", "executor._processes.values()",
        "from onnxruntime.quantization.registry import QDQRegistry", "from torch.fx.graph import CodeGen",
    ],
)  # fmt: skip
def test_private_names_are_found(line: str) -> None:
    assert [number for number, _ in foreign_private(ast.parse(f"import os\n{line}\nos._exit(1)\n"))] == [2]
    assert not list(
        foreign_private(ast.parse("class A:\n    def f(self):\n        self._x = self.__class__\n        self._x"))
    )


def test_no_large_file_is_tracked() -> None:
    large = [str(path) for path in tracked() if path.stat().st_size > 1_000_000]
    assert not large, "files over 1 MB"


PLACES = re.compile(
    r"(?<![\w.])/(?:work|root|home|Users|opt|mnt)/\w|\b(?:pypi|pytorch|npmjs|debian)\.org\b|pythonhosted"
)


def test_no_machine_paths_or_registry_hosts() -> None:
    wrong = []
    for path in tracked():
        if path in (Path(__file__), REPO / "LICENSE") or path.suffix in (".png", ".onnx", ".safetensors", ".npz"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            wrong += [f"{path}:{number}: {line.strip()[:80]}"] if PLACES.search(line) else []
    assert not wrong, "\n".join(["paths of one machine or hosts of a registry:", *wrong])


# Rooms whose tests are where their first user's are.
TESTED_ELSEWHERE = {"model": "space/test_mobile.py"}


def test_every_source_room_has_tests() -> None:
    rooms = {name.split(".")[0] for name in modules(SOURCE) if "." in name} - set(TESTED_ELSEWHERE)
    assert all((REPO / "tests" / place).is_file() for place in TESTED_ELSEWHERE.values())
    without = {room for room in rooms if not list((REPO / "tests" / room).glob("test_*.py"))}
    assert not without, f"rooms without tests: {sorted(without)}"


# Files outside the kinds of task, the sources, the report's parts and published scores, some of which are defined on
# classes, that name what only classification has. It only falls: a file that goes lowers the number, and none is added.
OF_CLASSES = re.compile(r"\b(labels|top1|top1_\w+|accuracy|classes)\b")
AMONG_THEM = ("task/kinds/", "task/sources/", "report/parts/", "proxy/scores/")
STILL_NAME_CLASSES = 73


def test_ever_fewer_files_know_of_classes() -> None:
    files = [path for path in SOURCE.rglob("*.py") if not str(path.relative_to(SOURCE)).startswith(AMONG_THEM)]
    found = [str(path.relative_to(SOURCE)) for path in files if OF_CLASSES.search(path.read_text())]
    assert len(found) == STILL_NAME_CLASSES, f"{len(found)} files; say so in STILL_NAME_CLASSES if they became fewer"


def test_there_is_one_ground_and_one_walk() -> None:
    """One class called Ground and one function that carries out a job, whatever the job."""
    nodes = [node for module in modules(SOURCE).values() for node in ast.walk(module.tree)]
    names = [node.name for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert [names.count(name) for name in ("Ground", "Job", "perform", "Board")] == [1, 1, 1, 1]
