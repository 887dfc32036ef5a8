"""Tables: rows find their architectures, seeds are averaged, and each fault is one sentence."""

import numpy as np
import pytest

from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.space.resolve import make_tabular
from edgewright.space.table import inside, read_ceiling, read_table, read_tables

CELLS, MACRO, MNAS = make_tabular("nb201"), make_tabular("nbmacro"), make_tabular("mnasnet")
OPS = np.array([CELLS.encode(CELLS.at(row)) for row in range(len(CELLS))], dtype=np.int8)
NAMES = np.array(["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"])
VALUES = np.linspace(10, 90, len(CELLS), dtype=np.float32)


@pytest.fixture
def saved(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "t.npz", **arrays)
        return str(tmp_path / "t.npz")

    return save


def test_a_whole_table_is_read_in_order(saved):
    path = saved(acc=VALUES, ops=OPS, op_names=NAMES)
    table = read_table(f"{path}:acc", CELLS)
    assert (table.name, table.source, len(table)) == ("acc", path, 15625)
    assert np.array_equal(table.values, VALUES.astype(np.float64)) and table.values.dtype == np.float64
    assert np.array_equal(table.indices, np.arange(15625))
    assert table.at(77) == VALUES[77]
    assert len(read_table(f"{saved(acc=VALUES)}:acc", CELLS)) == 15625


def test_rows_of_some_architectures_are_found_and_seeds_averaged(saved):
    path = saved(arch_idx=np.array([9, 4, 9, 600]), seed=np.array([1, 1, 2, 1]), acc=np.array([50.0, 3, 53, 8]))
    table = read_table(f"{path}:acc", CELLS)
    assert table.indices.tolist() == [4, 9, 600] and table.values.tolist() == [3, 51.5, 8]
    np.testing.assert_equal(table.at([600, 5, 4, 15624]), [8, np.nan, 3, np.nan])
    path = saved(arch_idx=np.array([9, 4, 2]), mem_arch_idx=np.array([7, 1]), acc=np.arange(3), mem=np.array([5, 6]))
    assert read_table(f"{path}:mem", CELLS).indices.tolist() == [1, 7]
    assert {name: len(table) for name, table in read_tables(path, CELLS).items()} == {"acc": 3, "mem": 2}


def test_rows_that_are_spelled_out_are_found(saved):
    rows = np.array(
        [[1, 3, 1, 0, 4, 5, 2, 1, 6, 3, 3, 0, 1, 3, 1, 0, 4, 3, 1, 1, 6, 5, 4, 0, 1, 3, 1, 1], [1, 3, 1, 0] * 7]
    )
    table = read_table(f"{saved(arch=rows, acc=np.array([3.0, 4.0]))}:acc", MNAS)
    assert table.indices[0] == 0 and table.values.tolist() == [4, 3]
    assert MNAS.index(MNAS.from_row(rows[0].tolist())) == table.indices[1]
    several = np.arange(9.0).reshape(3, 3)
    table = read_table(f"{saved(arch=np.array([[2] * 8, [0] * 8, [1] * 8]), acc=several)}:acc", MACRO)
    assert table.indices.tolist() == [0, 3280, 6560] and table.values.tolist() == [4, 7, 1]


SWAPPED = OPS[[*range(100), 101, 100, *range(102, len(OPS))]]


@pytest.mark.parametrize(
    ("arrays", "column", "words"),
    [
        ({"acc": VALUES}, "other", "no column 'other'; it has acc"),
        ({"acc": VALUES[:-1]}, "acc", "15624 rows, but the space nb201 has 15625 architectures"),
        ({"acc": VALUES, "ops": SWAPPED}, "acc", "ops of row 100 is architecture 101 of the space nb201"),
        ({"acc": VALUES, "ops": OPS, "op_names": NAMES[::-1]}, "acc", "op_names are avg_pool_3x3"),
        ({"acc": VALUES, "ops": OPS + 1}, "acc", "ops of row .* not one of 0 to 4"),
        ({"acc": VALUES, "ops": OPS[:, :5]}, "acc", "6 choices, not 5"),
        ({"acc": np.where(VALUES > 89, np.nan, VALUES)}, "acc", "196 of 15625 values are NaN or infinite"),
        ({"acc": np.append(VALUES[1:], np.inf)}, "acc", "1 of 15625 values are NaN or infinite"),
        ({"acc": np.full(15625, 7.5)}, "acc", "every value is 7.5, which ranks nothing"),
        ({"acc": np.array(["high"] * 15625)}, "acc", "one number an architecture"),
        ({"acc": np.zeros(0)}, "acc", "one number an architecture"),
        ({"acc": np.arange(3), "arch_idx": np.array([1, 2, 15625])}, "acc", "arch_idx 15625 is not in the space nb201"),
        ({"acc": np.arange(3), "arch_idx": np.array([1, 2])}, "acc", "3 rows, but"),
        ({"acc": np.array([1, None] * 2, dtype=object)}, "acc", "pickled Python objects, which are refused"),
    ],
)
def test_faults_are_one_sentence(saved, arrays, column, words):
    with pytest.raises(BadInput, match=words) as caught:
        read_table(f"{saved(**arrays)}:{column}", CELLS)
    assert "t.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_tables_are_refused(saved, tmp_path):
    with pytest.raises(BadInput, match=r"nowhere.npz: no such file"):
        read_table(f"{tmp_path / 'nowhere.npz'}:acc", CELLS)
    with pytest.raises(BadInput, match=r"say which column .* FILE.npz:COLUMN; its columns: acc"):
        read_table(saved(acc=VALUES), CELLS)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(BadInput, match=r"not a whole .npz file"):
        read_table(f"{tmp_path / 'broken.npz'}:acc", CELLS)
    np.save(tmp_path / "one.npy", VALUES)
    with pytest.raises(BadInput, match="a single array"):
        read_table(f"{tmp_path / 'one.npy'}:acc", CELLS)
    with pytest.raises(BadInput, match="no column of numbers"):
        read_tables(saved(ops=OPS), CELLS)


def test_published_files_are_read(shared_data):
    folder = shared_data / "nas" / "nasbench201"
    accuracy = read_table(f"{folder / 'nb201_acc.npz'}:c10_test_200", CELLS)
    assert accuracy.values.argmax() == 6111 and accuracy.values.max() == pytest.approx(94.3733, abs=1e-4)
    devices = read_tables(folder / "nb201_latency.npz", CELLS)
    assert len(devices) == 24 and devices["fpga"].at(0) == pytest.approx(2.57296)
    assert {len(table) for table in read_tables(folder / "nb201_latency_1999.npz", CELLS).values()} == {1999}
    assert len(read_table(f"{folder / 'nb201_int8_esp32.npz'}:c10_int8", CELLS)) == 15606
    assert len(read_table(f"{folder / 'nb201_int8_esp32.npz'}:mem_total_bytes", CELLS)) == 3105


def test_any_column_is_a_ceiling(saved):
    """By hand: what the table lacks keeps none, and of two ceilings both must hold."""
    path = saved(arch_idx=np.array([3, 5, 8, 13]), energy=np.array([0.5, 2, 4, 8]), area=np.array([9, 9, 1, 1]))
    energy, area = (read_ceiling(f"{path}:{spec}", CELLS) for spec in ("energy<=4", "area <= 8.5"))
    assert (energy.name, energy.most, len(energy.values)) == (f"{path}:energy", 4.0, 15625)
    assert np.flatnonzero(energy.keeps()).tolist() == [3, 5, 8]
    known = np.ones(15625, dtype=bool)
    assert np.flatnonzero(inside([energy, area], known)).tolist() == [8]
    assert inside([], known).all()
    known[8] = False
    with pytest.raises(BudgetInfeasible, match=r"energy <= 4 and .*area <= 8.5; the least is 0.5, 1$"):
        inside([energy, area], known)


@pytest.mark.parametrize("spec", ["energy", "energy<4", "energy<=", "energy<=much", "energy<=-1", "energy<=inf", "<=4"])
def test_what_is_no_ceiling_is_one_sentence(saved, spec):
    path = saved(arch_idx=np.array([3, 5]), energy=np.array([0.5, 2]))
    with pytest.raises(BadInput, match=r"a ceiling is FILE.npz:COLUMN<=VALUE, in quotes|say which column"):
        read_ceiling(f"{path}:{spec}", CELLS)
    with pytest.raises(BadInput, match="no column 'watts'"):
        read_ceiling(f"{path}:watts<=3", CELLS)
