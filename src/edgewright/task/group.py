r"""What belongs together: frames of one film, pictures of one person, cuts of one slide. It stays in one part.

Samples of one group are alike in more than what is to be learned; where some are learned from and others looked at,
figures on val flatter. Groups are named by a regular expression over file names, by a table, or by an array of the file
(`arrays:`). Where nobody named any, `nearly_repeated` says that there seem to be some.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.tensors import leaves
from edgewright.task.base import Split
from edgewright.task.glance import glance

ALIKE, SAME = 0.99, 1 - 1e-5  # between these correlations two samples are nearly the same
LOOKED_AT, AMONG = 500, 20_000  # samples of a part, and of train
MANY = 0.01  # of a part: fewer happen
NEARER = 1.5  # times as many as of a test part that came with the data


def groups_of(files: Sequence[str], wish: str) -> list[str]:
    """The group of each file, by its path below the data's folder.

    Args: wish: FILE.csv, a table with the columns file and group, or a regular expression that is found in the path:
        the group is what its brackets hold, or all that it finds where it has none.
    Errors: BadInput for what is neither, and for files without a group.
    """
    found = _by_table(files, user_path(wish)) if wish.endswith(".csv") else _by_expression(files, wish)
    if len(set(found)) == 1:
        raise BadInput(
            f"group '{wish}': all {len(files)} files are of one group, '{found[0]}', so nothing can be held out"
        )
    return found


def rooted(wish: str | None) -> str | None:
    """The wish with its table named from the root, so that it means the same from any working directory."""
    return str(user_path(wish).absolute()) if wish is not None and wish.endswith(".csv") else wish


def refuse_wish(wish: str | None, source: str, how: str) -> None:
    """Errors: BadInput where groups were asked for of a source that names them in another way."""
    if wish is not None:
        raise BadInput(f"group '{wish}': {source} have no file names; name groups {how}")


def numbered(groups: Sequence[str]) -> Tensor:
    """(N,) int64: each group's place among them."""
    places = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    return torch.tensor([places[name] for name in groups], dtype=torch.int64)


def _by_expression(files: Sequence[str], wish: str) -> list[str]:
    try:
        expression = re.compile(wish)
    except re.error as error:
        raise BadInput(f"group '{wish}': not a regular expression ({error}), and no .csv file") from None
    matches = [expression.search(file) for file in files]
    missing = [file for file, match in zip(files, matches, strict=True) if match is None]
    if missing:
        raise BadInput(f"group '{wish}': not found in {len(missing)} of {len(files)} file names, such as {missing[0]}")
    return ["/".join(part or "" for part in match.groups()) or match[0] for match in matches if match is not None]


def _by_table(files: Sequence[str], table: Path) -> list[str]:
    if not table.is_file():
        raise BadInput(f"{table}: no such file; a table of groups has the columns file and group")
    with table.open(newline="", encoding="utf-8-sig") as opened:
        rows = csv.DictReader(opened)
        if lacking := [name for name in ("file", "group") if name not in (rows.fieldnames or ())]:
            raise BadInput(f"{table}: no column '{lacking[0]}'; a table of groups has the columns file and group")
        known = {str(PurePosixPath(row["file"])): row["group"] for row in rows}
    found = [known.get(file, known.get(PurePosixPath(file).name)) for file in files]
    missing = [file for file, group in zip(files, found, strict=True) if not group]
    if missing:
        raise BadInput(f"{table}: no group for {len(missing)} of {len(files)} files, such as {missing[0]}")
    return [group for group in found if group]


def torn(groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Remarks on groups, by part as the data has them, that are in train and elsewhere too."""
    for part, names in groups.items():
        both = set(names) & set(groups["train"])
        if part != "train" and both:
            yield f"{len(both)} groups are in train and in {part}: figures on {part} will flatter"


def nearly_repeated(train: Split, val: Split, test: Split | None) -> Iterator[str]:
    """A remark on val where more of it than happens are nearly the same as a training sample.

    Args: test: where it came with the data and was not drawn, what happens: signs are alike by nature. Val is
        remarked on where it is half as much again nearer to train than test is."""
    share, usual = alike(train, val), 0.0 if test is None else alike(train, test)
    if share > max(MANY, NEARER * usual):
        told = "" if test is None else f", and {100 * usual:.0f} % of test"
        yield (
            f"{100 * share:.0f} % of val are nearly the same as a training sample{told}: figures on val may flatter; "
            "what belongs together (frames of one film, one person) stays in one drawn part by --group, in arrays by "
            "group_train"
        )


def alike(train: Split, part: Split) -> float:
    """Share of a part, 0 to 1, that is nearly the same as a sample of train, of some of either.

    Maps shrunk to 12 x 12 pixels, without their mean: the largest correlation with train's. Copies, number for number,
    are another remark's."""
    known, looked_at = (_shrunk(one, count) for one, count in ((train, AMONG), (part, LOOKED_AT)))
    if known is None or looked_at is None or not len(known) or not len(looked_at):
        return 0.0
    nearest = (looked_at @ known.T).max(1).values
    return ((nearest > ALIKE) & (nearest < SAME)).float().mean().item()


def _shrunk(part: Split, count: int) -> Tensor | None:
    """(n, features) of unit length; None where there is not one map a sample. What has no contrast is left out."""
    maps = [x for x in leaves(part.inputs) if x.ndim == 4]
    if len(maps) != 1:
        return None
    x = glance(maps[0], count)[0].flatten(1)
    x = x - x.mean(1, keepdim=True)
    lengths = x.norm(dim=1, keepdim=True)
    kept = lengths.flatten() > 1e-3 * lengths.max()
    return x[kept] / lengths[kept]
