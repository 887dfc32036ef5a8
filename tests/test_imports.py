"""The laws about imports, read off the source (docs/architecture.md says them in words).

Rooms import downwards only; no two modules import each other, however far round; method files never import each other;
optional libraries enter through one adapter file, inside a function; nothing that runs a stranger's code is used; and
importing the package is quick; nobody outside the device room asks of which class a device is.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

PACKAGE = "edgewright"
SOURCE = Path(__file__).resolve().parent.parent / "src" / PACKAGE

# A room may import the rooms of the rows above its own, and itself. A new room is entered here and in the docs.
LEVELS = (
    {"core"},
    {"ir"},
    {"device", "model"},
    {"task"},
    {"space", "backward"},
    {"proxy", "supernet", "train", "compress", "dynamic", "graph", "robust"},
    {"start"},
    {"search", "export"},
    {"report"},
    {"job"},
    {"", "front", "cli", "__main__"},  # "" is the package's own __init__, which only names what others define
)

OPTIONAL = {
    "ai_edge_litert", "ai_edge_torch", "dp_accounting", "executorch", "flwr", "litert_torch", "mlflow", "nncf",
    "opacus", "openvino", "optuna", "pillow_heif", "pymetis", "ray", "segmentation_models_pytorch", "tensorboard",
    "timm", "torch_geometric", "torch_pruning", "torchao", "torchvision",
}  # fmt: skip

UNPICKLERS = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "pandas.read_pickle", "yaml.load", "yaml.load_all",
    "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "builtins.eval", "builtins.exec", "os.system",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One imported module, with where it was imported."""

    name: str
    line: int
    in_function: bool
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """One source file of the package; `name` is without the package: `proxy.zico`, and `proxy` for its __init__."""

    path: Path
    name: str

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def stem(self) -> str:
        return self.name.split(".")[-1]

    def at(self, line: int, rule: str) -> str:
        return f"{self.path}:{line}: {rule}"

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(_imports(self.tree, False))


def _imports(node: ast.AST, in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, in_function)
        elif isinstance(child, ast.ImportFrom):
            name = "." * child.level + (child.module or "")
            yield Import(name, child.lineno, in_function, tuple(alias.name for alias in child.names))
        yield from _imports(child, inside)


@cache
def modules(source: Path) -> dict[str, Module]:
    """Every module under `source` by its name without the package; read once, as every rule asks."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(path, name)
    return found


def edges(module: Module, known: dict[str, Module]) -> Iterator[tuple[str, int]]:
    """The modules of the package that `module` imports, and on which line, wherever in the file."""
    for item in module.imports:
        if item.name != PACKAGE and not item.name.startswith(PACKAGE + "."):
            continue
        base = item.name[len(PACKAGE) + 1 :]
        below = [".".join(filter(None, (base, name))) for name in item.names]
        inner = [name for name in below if name in known]
        yield from ((name, item.line) for name in inner)
        if len(inner) < len(item.names) or not item.names:
            yield base, item.line


def room_arrows(known: dict[str, Module]) -> list[str]:
    """Rule 1: a room imports only rooms below it (and itself)."""
    level = {room: depth for depth, rooms in enumerate(LEVELS) for room in rooms}
    wrong = []
    for module in known.values():
        if module.room not in level:
            wrong.append(
                module.at(1, f"room {module.room!r} has no level: enter it in LEVELS and docs/architecture.md")
            )
            continue
        top = level[module.room] == len(LEVELS) - 1
        for target, line in edges(module, known):
            room = target.split(".")[0]
            if room != module.room and not top and level.get(room, 99) >= level[module.room]:
                wrong.append(
                    module.at(line, f"room {module.room!r} may not import {target or PACKAGE!r}: arrows go down")
                )
    return wrong


def cycles(known: dict[str, Module]) -> list[str]:
    """Rule 2: no module imports itself, however far round."""
    graph = {name: [(to, line) for to, line in edges(module, known) if to in known] for name, module in known.items()}
    done: set[str] = set()
    wrong: list[str] = []

    def walk(name: str, trail: list[str]) -> None:
        for target, line in graph[name]:
            if target in trail:
                ring = " -> ".join([*trail[trail.index(target) :], target])
                wrong.append(known[name].at(line, f"import cycle {ring}"))
            elif target not in done:
                walk(target, [*trail, target])
        done.add(name)

    for name in known:
        if name not in done:
            walk(name, [name])
    return wrong


def holds_methods(folder: Module) -> bool:
    """Whether every file of a folder is a method: its `__init__.py` says so with its first word."""
    return folder.path.name == "__init__.py" and (ast.get_docstring(folder.tree) or "").startswith("Methods:")


def method_folder(module: Module, known: dict[str, Module]) -> str | None:
    """The folder of methods that a file lies in as one of them (`base` and `resolve` are not), or None."""
    parent = module.name.rpartition(".")[0]
    if module.stem in ("base", "resolve") or parent not in known or not holds_methods(known[parent]):
        return None
    return parent


def sibling_arrows(known: dict[str, Module]) -> list[str]:
    """Rule 3: methods of one folder never import each other; what they share is mechanism, outside it."""
    wrong = []
    for module in known.values():
        own = method_folder(module, known)
        for target, line in edges(module, known) if own else ():
            if target != module.name and target in known and method_folder(known[target], known) == own:
                rule = f"a method may not import another, {target}: what methods share goes into their mechanism"
                wrong.append(module.at(line, rule))
    return wrong


def through_packages(known: dict[str, Module]) -> list[str]:
    """Inside the library modules are imported, never names from a room's __init__; nor by relative imports."""
    wrong = []
    for module in known.values():
        for item in module.imports:
            if item.name.startswith("."):
                wrong.append(module.at(item.line, f"relative import {item.name}: write edgewright.ROOM.MODULE"))
        for target, line in edges(module, known):
            held = known.get(target)
            if target and held and held.path.name == "__init__.py" and module.room not in ("", "cli", "__main__"):
                wrong.append(module.at(line, f"imports from the package {target}: import the module that defines it"))
    return wrong


def optional_libraries(known: dict[str, Module]) -> list[str]:
    """Rule 4: an optional library is imported inside functions only, and in one file only."""
    wrong = []
    homes: dict[str, Module] = {}
    for module in known.values():
        for item in module.imports:
            library = item.name.split(".")[0]
            if library not in OPTIONAL:
                continue
            if not item.in_function:
                wrong.append(module.at(item.line, f"optional library {library} imported outside a function"))
            home = homes.setdefault(library, module)
            if home is not module:
                rule = f"optional library {library} has its adapter already: {home.path.name}"
                wrong.append(module.at(item.line, rule))
    return wrong


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def _unsafe(module: Module) -> Iterator[tuple[int, str]]:
    aliases: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for item in module.imports:
        if item.name.split(".")[0] in UNPICKLERS:
            yield item.line, item.name
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, _, rest = _dotted(node).partition(".")
            name = aliases.get(first, first) + ("." + rest if rest else "")
            if name in UNSAFE_CALLS:
                yield node.lineno, name
        elif isinstance(node, ast.keyword):
            true = isinstance(node.value, ast.Constant) and node.value.value is True
            false = isinstance(node.value, ast.Constant) and node.value.value is False
            if (node.arg in ("allow_pickle", "shell") and true) or (node.arg == "weights_only" and false):
                yield node.value.lineno, f"{node.arg}={true}"


def unsafe_loading(known: dict[str, Module]) -> list[str]:
    """Rule 6: loading a stranger's files runs none of their code: safetensors, JSON, safe YAML, ONNX."""
    return [
        module.at(line, f"{name} is banned: safetensors, JSON or safe YAML instead")
        for module in known.values()
        for line, name in _unsafe(module)
    ]


def _is_device(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(_dotted(base) == "Device" for base in node.bases)


def device_questions(known: dict[str, Module]) -> list[str]:
    """Outside the device room nobody asks of which class a device is: what it can is in `can` and its methods."""
    room = [module.tree for module in known.values() if module.room == "device"]
    classes = {node.name for tree in room for node in ast.walk(tree) if _is_device(node)}  # type: ignore[attr-defined]
    wrong = []
    for module in known.values():
        for node in ast.walk(module.tree) if module.room != "device" else ():
            asked = isinstance(node, ast.Call) and _dotted(node.func) in ("isinstance", "issubclass", "type")
            named = {_dotted(part).split(".")[-1] for part in ast.walk(node)} if asked else set()
            if named & classes or (isinstance(node, ast.Attribute) and node.attr == "board"):
                wrong.append(module.at(node.lineno, "asks what kind of device this is: ask what it can, or a method"))
    return wrong


RULES = (
    room_arrows, cycles, sibling_arrows, through_packages, optional_libraries, unsafe_loading, device_questions,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_keeps_the_rule(rule) -> None:
    wrong = rule(modules(SOURCE))
    assert not wrong, "\n".join(["", *wrong])


BREACHES = {
    room_arrows: {"core/x.py": "def f():\n    from edgewright.task.base import Task\n"},
    cycles: {"train/a.py": "import edgewright.train.b\n", "train/b.py": "from edgewright.train import a\n"},
    sibling_arrows: {
        "proxy/scores/__init__.py": '"""Methods: scores."""\n',
        "proxy/scores/one.py": "",
        "proxy/scores/two.py": "from edgewright.proxy.scores.one import score\n",
    },
    through_packages: {"core/__init__.py": "", "task/x.py": "from edgewright.core import Cost\n"},
    optional_libraries: {"core/pool.py": "import ray\n"},
    unsafe_loading: {"core/x.py": "import torch as t\n\n\ndef f(p):\n    return t.load(p)\n"},
    device_questions: {
        "device/board/board.py": "class Board(Device):\n    pass\n",
        "job/x.py": "def f(device):\n    return isinstance(device, Cpu | Board)\n",
    },
}
MORE_BREACHES = [
    (room_arrows, {"device/x.py": "import edgewright.task.base\n"}),
    (room_arrows, {"train/x.py": "import edgewright\n"}),
    (room_arrows, {"attic/x.py": ""}),
    (device_questions, {"job/x.py": "def f(ground):\n    return ground.board is None\n"}),
    (cycles, {"job/a.py": "def f():\n    import edgewright.job.a\n"}),
    (cycles, {"proxy/base.py": "import edgewright.proxy.one\n", "proxy/one.py": "import edgewright.proxy.base\n"}),
    (through_packages, {"proxy/base.py": "", "proxy/x.py": "from .base import score\n"}),
    (optional_libraries, dict.fromkeys(("model/a.py", "model/b.py"), "def f():\n    import timm\n")),
    (unsafe_loading, {"core/x.py": "from pickle import loads\n"}),
    (unsafe_loading, {"core/x.py": "from yaml import load as read\n\nx = read('')\n"}),
    (unsafe_loading, {"core/x.py": "x = eval('1')\n"}),
    (unsafe_loading, {"core/x.py": "import numpy as np\n\nx = np.load('x', allow_pickle=True)\n"}),
]


def _write(folder: Path, files: dict[str, str]) -> dict[str, Module]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return modules(folder)


@pytest.mark.parametrize(("rule", "files"), [*BREACHES.items(), *MORE_BREACHES])
def test_rule_catches_a_breach(rule, files: dict[str, str], tmp_path: Path) -> None:
    wrong = rule(_write(tmp_path, files))
    assert wrong
    assert any(f"{name}:" in message for name in files for message in wrong)


def test_every_rule_has_a_breach() -> None:
    assert set(BREACHES) == set(RULES)


def test_rules_pass_an_orderly_tree(tmp_path: Path) -> None:
    known = _write(
        tmp_path,
        {
            "__init__.py": "from edgewright.job.design.run import design\n",
            "core/cost.py": "def f(model):\n    import ray\n    model.eval()\n",
            "proxy/base.py": "from edgewright.core.cost import f\n",
            "proxy/scores/zico.py": "from edgewright.proxy import base\n",
            "proxy/resolve.py": "from edgewright.proxy.scores.zico import z\n",
            "job/design/run.py": "from edgewright.proxy.resolve import r\n",
        },
    )
    assert [message for rule in RULES for message in rule(known)] == []


IMPORT = """
import sys, time
start = time.process_time()
import {module}
seconds = time.process_time() - start
print(seconds, *sorted(name for name in sys.modules if "." not in name))
"""


@pytest.mark.parametrize("module", ["edgewright", "edgewright.cli"])
def test_import_is_light(module: str) -> None:
    times = []
    for _ in range(3):  # the quickest of three: other work on the machine slows an import, nothing speeds it up
        run = subprocess.run(
            [sys.executable, "-c", IMPORT.format(module=module)], capture_output=True, text=True, check=True
        )
        seconds, *loaded = run.stdout.split()
        heavy = (OPTIONAL | {"torch", "plotly", "sklearn", "scipy", "onnxruntime", "onnx"}) & set(loaded)
        assert not heavy, f"import {module} loads {sorted(heavy)}: import them in the functions that need them"
        times.append(float(seconds))
        if times[-1] < 1:
            break
    assert min(times) < 2, f"import {module} takes {min(times):.1f} s"
