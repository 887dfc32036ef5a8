"""The options of a command, made from the fields of its plan: a new field is an option, without a line here.

    @app.command()
    @guarded
    @asks(CompressPlan, argument="source", after={"epochs": ("out", "resume")})
    def compress(asked: Asked, out: ... = None, resume: ... = None) -> None:

A field with a description is an option of its name; the description is its help, with the default behind it. A field
that is a value itself (a budget) gives an option for each of its own. Only what was given is in `asked`, as the plan
names it, so that the plan's own defaults hold, and a file may give what the options do not. What is no plain number,
text or path is handed over as text, for the plan to read.
"""

import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Asked = dict[str, Any]  # what was given, by the plan's fields
Command = Callable[..., None]
_PLAIN = (int, float, str, bool, Path)


def asks(
    plan: type[BaseModel],
    *,
    argument: str = "",
    optional: bool = False,
    but: Sequence[str] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    after: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Command], Command]:
    """A decorator of commands, whose first parameter, `asked`, becomes the options of `plan`.

    Args:
        argument: the field that is given by its place.
        optional: whether nothing must be given: the plan may come from a file or a folder.
        but: fields that the command asks for in its own way.
        names: of a field's option, where it is called otherwise.
        after: which of the command's own options stand behind which field, "" for before the first; the others stand
            behind all.
    """
    fields = [field for field in _fields(plan) if field.name not in but]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = {name: one.replace(kind=one.KEYWORD_ONLY) for name, one in signature.parameters.items()}
        del own["asked"]
        ordered = [own.pop(name) for name in (after or {}).get("", ())]
        for field in fields:
            ordered += [option.parameter(option.name == argument, optional, names or {}) for option in field.options()]
            ordered += [own.pop(name) for name in (after or {}).get(field.name, ())]
        ordered += own.values()

        @wraps(command)
        def run(**given: Any) -> None:
            taken = {field.name: field.take(given) for field in fields}
            command({name: value for name, value in taken.items() if value is not None}, **given)

        run.__signature__ = inspect.Signature(ordered)  # pyright: ignore[reportAttributeAccessIssue]
        run.__annotations__ = {one.name: one.annotation for one in ordered} | {"return": None}
        return run

    return decorate


@dataclass(frozen=True)
class _Field:
    """A field of a plan, and the options that it is given by. kind: its type, None aside."""

    name: str
    info: FieldInfo
    kind: Any

    @cached_property
    def inner(self) -> "list[_Field]":
        """The fields of a field that is a value itself."""
        return list(_fields(self.kind)) if inspect.isclass(self.kind) and issubclass(self.kind, BaseModel) else []

    def options(self) -> "list[_Field]":
        """Those that have an option of their own."""
        return [option for field in self.inner for option in field.options()] if self.inner else [self]

    def parameter(self, by_place: bool, optional: bool, names: Mapping[str, Sequence[str]]) -> inspect.Parameter:
        """The option, or the argument, as typer reads it off a signature."""
        needed = self.info.is_required() and not optional
        several = self.kind == tuple[str, ...]  # may be given again
        kind = self.kind if self.kind in _PLAIN else list[str] if several else str
        told = typer.Argument if by_place else partial(typer.Option, *names.get(self.name, ()))
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if needed else None,
            annotation=Annotated[kind if needed else kind | None, told(help=self.help())],
        )

    def help(self) -> str:
        """The description, and the default where the description does not say it in words."""
        text, default = str(self.info.description), self.info.get_default()
        if self.info.is_required() or default is None or default is False or "[default" in text:
            return text
        shown = ",".join(map(str, default if isinstance(default, tuple) else (default,))).removesuffix(".0")
        return f"{text.removesuffix('.')} [default: {shown}]."

    def take(self, given: dict[str, Any]) -> Any:
        """Its value, taken out of what was given; None where nothing was."""
        if not self.inner:
            return given.pop(self.name)
        inside = {field.name: field.take(given) for field in self.inner}
        return {name: value for name, value in inside.items() if value is not None} or None


def _fields(plan: type[BaseModel]) -> Iterator[_Field]:
    """Those that a person gives: a format's version, say, has no description."""
    hints = get_type_hints(plan, include_extras=True)
    for name, info in plan.model_fields.items():
        field = _Field(name, info, _without_none(hints[name]))
        if info.description or field.inner:
            yield field


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else hint
