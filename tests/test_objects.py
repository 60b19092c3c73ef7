"""Tables of objects as connectomes have them: read right, or refused with the option that reads them."""

import csv
import itertools
import json
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from twostream.base.config import apply_overrides
from twostream.base.errors import ConfigError, InputError
from twostream.candidates.candidate import extract
from twostream.candidates.objects import read_objects, read_table_at
from twostream.candidates.objects.positions import to_image_voxels
from twostream.candidates.sources import SourceConfig
from twostream.candidates.table import read_table, to_table, write_parts
from twostream.task import Mitochondria, SynapsePolarity
from twostream.volume import MemoryVolume

SIZE = np.array([40.0, 4.0, 4.0])
SHAPE = (24, 160, 200)
IMAGE = MemoryVolume(np.zeros(SHAPE, np.uint8), SIZE)
TASK, POLARITY = Mitochondria(IMAGE.voxel_size_nm), SynapsePolarity(IMAGE.voxel_size_nm)
NUM = 30
RNG = np.random.default_rng(0)
CENTER = np.stack([RNG.permutation(np.linspace(1, n - 2, NUM).astype(int)) for n in SHAPE], 1)
ASIDE = np.array([0, 1, 1])
PRE, POST = CENTER - ASIDE, CENTER + ASIDE
IDS = [864691135000000000 + int(i) for i in RNG.permutation(10**6)[:NUM]]
PLACE_NM = (4000.0, 20000.0, 24000.0)
FAR = np.array([100, 5000, 6000])
"""``PLACE_NM`` in voxels."""


def xyz(points, scale=1):
    """Rows of x, y, z from rows of z, y, x."""
    return (np.asarray(points) * scale)[:, ::-1].astype(int).tolist()


def numpy_text(row):
    return str(np.array(row))


def table_csv(path, columns):
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def split(name, points, scale=1):
    """{name with axis: values}; ``name`` has a # where the axis stands."""
    return {
        name.replace("#", axis): column
        for axis, column in zip("xyz", np.array(xyz(points, scale)).T.tolist(), strict=True)
    }


def split_floats(name, points):
    """As ``split``, with decimals."""
    return {name.replace("#", axis): points[:, 2 - i].tolist() for i, axis in enumerate("xyz")}


def lists(write, scale=1):
    points = {"pre_pt_position": PRE, "post_pt_position": POST, "ctr_pt_position": CENTER}
    return {name: [write(row) for row in xyz(at, scale)] for name, at in points.items()}


def read(path, task=POLARITY, image=IMAGE, **settings):
    return read_objects(path, image, task, **settings)


def assert_points(objects, *, sides=True):
    np.testing.assert_allclose(objects.center, CENTER)
    if sides:
        np.testing.assert_allclose(objects.pre, PRE)
        np.testing.assert_allclose(objects.post, POST)


NM = {"table_resolution_nm": (1.0, 1.0, 1.0)}
ROOTS = {"pre_pt_root_id": IDS, "post_pt_supervoxel_id": IDS, "size": range(NUM), "valid": ["t"] * NUM}
LAYOUTS = {
    "CAVE, arrays as pandas writes them": ({"": range(NUM), "id": IDS} | lists(numpy_text) | ROOTS, {}),
    "CAVE, lists": ({"id": IDS} | lists(json.dumps) | ROOTS, {}),
    "CAVE, text": ({"id": IDS} | lists(lambda row: str([str(value) for value in row])), {}),
    "CAVE, tuples": ({"id": IDS} | lists(lambda row: str(tuple(row))), {}),
    "CAVE in nm": ({"id": IDS} | lists(json.dumps, SIZE), NM),
    "CAVE at half the resolution": (
        {"id": IDS}
        | {
            name: [json.dumps((np.array(row) / [2, 2, 1]).tolist()) for row in xyz(at)]
            for name, at in {"pre_pt_position": PRE, "post_pt_position": POST, "ctr_pt_position": CENTER}.items()
        },
        {"table_resolution_nm": (40.0, 8.0, 8.0)},
    ),
    "CAVE, split": (
        {"id": IDS}
        | split("pre_pt_position_#", PRE)
        | split("post_pt_position_#", POST)
        | split("ctr_pt_position_#", CENTER),
        {},
    ),
    "FlyWire": ({"id": IDS} | split("pre_#", PRE, SIZE) | split("post_#", POST, SIZE) | {"cleft_score": IDS}, NM),
    "neuPrint": ({"bodyId_pre": IDS} | split("#_pre", PRE) | split("#_post", POST) | {"confidence_pre": IDS}, {}),
    "CATMAID": ({"connector_id": IDS} | split("#", CENTER, SIZE) | {"confidence": [5] * NUM}, NM),
    "pinky": ({"id": IDS} | split("presyn_#", PRE) | split("postsyn_#", POST) | split("centroid_#", CENTER), {}),
    "named in nm": (
        {"id": IDS} | split("#_nm", CENTER, SIZE) | split("pre_#_nm", PRE, SIZE) | split("post_#_nm", POST, SIZE),
        {},
    ),
    "named in nm by people": (
        {"id": IDS} | split("# [nm]", CENTER, SIZE) | split("Pre # (nm)", PRE, SIZE) | split("Post # (nm)", POST, SIZE),
        {},
    ),
    "upper case, voxels": ({"ID": IDS} | split("POS_#", CENTER) | split("PRE_#", PRE) | split("POST_#", POST), {}),
    "our own queries": ({"query": range(NUM)} | split("center_#", CENTER), {}),
    "lists z, y, x": ({"center_zyx": CENTER.tolist(), "pre_zyx": PRE.tolist(), "post_zyx": POST.tolist()}, {}),
    "lists z, y, x, stated": ({"position": CENTER.tolist()}, {"list_order": "zyx"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tables_are_read_as_connectomes_have_them(tmp_path, layout):
    columns, settings = LAYOUTS[layout]
    objects = read(table_csv(tmp_path / "t.csv", columns), **settings)
    assert_points(objects, sides=objects.pre is not None)
    has_ids = any(name in columns for name in ("id", "connector_id"))
    assert objects.ids == (IDS if has_ids else list(range(1, NUM + 1)))
    assert (objects.pre is None) == (layout in ("CATMAID", "our own queries", "lists z, y, x, stated"))
    said = "\n".join(objects.understood)
    assert f"t.csv: {NUM} rows; " in said and "centre" in said
    assert "they cover z 1 to 22 of 24, y 1 to 158 of 160, x 1 to 198 of 200 voxels" in said or "half-way" in said
    assert ("not used: " in said) == bool(
        set(columns) & {*ROOTS, "bodyId_pre", "confidence", "query", "ID", "cleft_score"}
    )


@pytest.mark.parametrize("ending", ["parquet", "pq", "feather", "arrow", "jsonl", "stream"])
def test_tables_are_read_from_every_kind_of_file(tmp_path, ending):
    columns = {"id": [2**64 - 1, *IDS[1:]]} | lists(list)
    table = pa.table({"id": pa.array(columns["id"], pa.uint64())} | {k: v for k, v in columns.items() if k != "id"})
    path = tmp_path / f"t.{ending}"
    if ending in ("parquet", "pq"):
        pq.write_table(table, path)
    elif ending in ("feather", "arrow"):
        feather.write_feather(table, path)
    elif ending == "stream":
        path = tmp_path / "t.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text("\n".join(map(json.dumps, table.to_pylist())) + "\n\n")
    objects = read(path)
    assert_points(objects)
    assert objects.ids == columns["id"]


def test_points_as_mappings_say_their_axes(tmp_path):
    rows = [{"position": dict(zip("xyz", row, strict=True))} for row in xyz(CENTER)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert_points(read(tmp_path / "t.parquet", TASK), sides=False)


def test_the_place_of_the_image_is_subtracted_from_nm_and_from_voxels_of_the_data_set(tmp_path):
    placed = MemoryVolume(np.zeros(SHAPE, np.uint8), SIZE)
    placed.offset_nm = PLACE_NM
    path = table_csv(tmp_path / "nm.csv", split("#_nm", CENTER + PLACE_NM / SIZE, SIZE))
    assert_points(read(path, TASK, placed), sides=False)
    path = table_csv(tmp_path / "t.csv", split("#", CENTER + PLACE_NM / SIZE))
    assert_points(read(path, TASK, placed, table_resolution_nm=tuple(SIZE)), sides=False)
    assert_points(read(table_csv(tmp_path / "t.csv", split("#", CENTER)), TASK, placed), sides=False)
    with pytest.raises(InputError, match="Counted from the first voxel of the image they would lie inside"):
        read(table_csv(tmp_path / "t.csv", split("#_nm", CENTER, SIZE)), TASK, placed)
    np.testing.assert_array_equal(to_image_voxels(np.array(PLACE_NM), (1.0, 1.0, 1.0), placed), 0)
    np.testing.assert_array_equal(to_image_voxels(np.array([1.0, 2.0, 3.0]), None, placed), [1, 2, 3])


HALF = CENTER // [1, 2, 2]
MISREAD = {
    "nm as voxels": (split("#", CENTER, SIZE), "Read as nm they would spread over 88% of Z"),
    "lists in nm": ({"position": [json.dumps(r) for r in xyz(CENTER, SIZE)]}, "Read as nm"),
    "x called z": (split("#", CENTER[:, ::-1]), "Read with Z and X exchanged"),
    "lists z, y, x": ({"position": [json.dumps(r) for r in CENTER.tolist()]}, "source.list_order=zyx"),
    "nm, x called z": (split("#", CENTER[:, ::-1] * SIZE[::-1]), "Read as nm with Z and X exchanged"),
    "finer voxels": (split("#", CENTER * [1, 2, 2]), "Read as voxels of 40 × 2 × 2 nm"),
    "coarser voxels": (split("#", HALF), "Read as voxels of 40 × 8 × 8 nm they would spread over 88% of Z, "),
    "coarser lists": ({"position": [json.dumps(r) for r in xyz(HALF)]}, "the first 92% of Z, 49% of Y, 50% of X"),
    "voxels called nm": (split("#_nm", CENTER), "Read as voxels of the image"),
    "µm": (split_floats("#", CENTER * SIZE / 1000), "Read as µm"),
    "unknown names": ({f"syn{a.upper()}": v for a, v in split("#", CENTER).items()}, "{z: synZ, y: synY, x: synX}"),
    "regionprops": (
        {f"centroid-{i}": CENTER[:, i].tolist() for i in range(3)},
        "{z: centroid-0, y: centroid-1, x: centroid-2}",
    ),
    "an unknown list": ({"soma": [json.dumps(r) for r in xyz(CENTER)]}, "{center: soma}"),
    "twice": (
        split("#", CENTER) | {"ctr_pt_position": [json.dumps(r) for r in xyz(CENTER)]},
        "{center: ctr_pt_position}",
    ),
    "scores above 1": (split("#", CENTER) | {"score": [150] * NUM}, "source.columns.score=null"),
}


def printed_settings(text):
    """The first group of --set options that an error prints, as a shell would read them."""
    words = shlex.split(text[text.index("--set ") :].split(" reads them so")[0].split(" or --set")[0])
    return [word for before, word in itertools.pairwise(words) if before == "--set"]


@pytest.mark.parametrize("kind", MISREAD)
def test_the_option_that_an_error_prints_reads_the_table(tmp_path, kind):
    columns, said = MISREAD[kind]
    path = table_csv(tmp_path / "t.csv", columns)
    with pytest.raises(InputError) as error:
        read(path, TASK)
    assert said in str(error.value)
    values = apply_overrides({"source": {"kind": "objects", "uri": str(path)}}, printed_settings(str(error.value)))
    config = SourceConfig.model_validate(values["source"])
    objects = read_table_at(config.uri, config, IMAGE, TASK, "source")
    np.testing.assert_allclose(objects.center, CENTER, atol=1.1)  # half voxels were rounded above


def test_points_of_a_larger_volume_are_placed_or_named(tmp_path):
    path = table_csv(tmp_path / "t.csv", split("#", CENTER + FAR))
    with pytest.raises(
        InputError, match="They lie at Z 101 to 122, Y 5001 to 5158, X 6001 to 6198 voxels: is the image cut"
    ):
        read(path, TASK)
    placed = MemoryVolume(np.zeros(SHAPE, np.uint8), SIZE)
    placed.offset_nm = PLACE_NM
    with pytest.raises(InputError, match=r"Read as voxels of the data set .* --set source.table_resolution_nm=40,4,4"):
        read(path, TASK, placed)
    far = np.concatenate([CENTER, CENTER + FAR])
    with pytest.raises(InputError, match=r"50% of the points lie outside.*Leave only the rows inside"):
        read(table_csv(tmp_path / "t.csv", split("#", far)), TASK)


def test_a_single_point_outside_is_a_fault_of_its_row(tmp_path):
    points = CENTER.copy()
    points[4, 2] = 200
    with pytest.raises(
        InputError, match=r"row 5, column x: got '200'; expected a position in the image, 0 to below 200 voxels.$"
    ):
        read(table_csv(tmp_path / "t.csv", split("#", points)), TASK)
    path = table_csv(tmp_path / "t.csv", {"position": [json.dumps(r) for r in xyz(points)]})
    with pytest.raises(
        InputError, match=r"row 5, column position: got '\[200, .*'; expected .* x from 0 to below 200 voxels.$"
    ):
        read(path, TASK)


def test_a_crowd_in_a_corner_is_questioned_unless_it_is_stated_or_small(tmp_path):
    corner = np.stack([np.random.default_rng(n).integers(0, n, NUM) for n in (2, 12, 15)], 1)
    path = table_csv(tmp_path / "t.csv", split("#", corner))
    with pytest.raises(
        InputError, match=r"all 30 points of z, y, x lie in a corner of the image, the first \d% of Z"
    ) as error:
        read(path, TASK)
    assert "Read " not in str(error.value)  # at no resolution would they fill the image
    for stated in ({"columns": dict(zip("zyx", "zyx", strict=True))}, {"table_resolution_nm": tuple(SIZE)}):
        np.testing.assert_allclose(read(path, TASK, **stated).center, corner)
    few = table_csv(tmp_path / "few.csv", {name: values[:19] for name, values in split("#", corner).items()})
    assert len(read(few, TASK).ids) == 19
    ordinary = CENTER // [1, 1, 2]  # all in one half
    assert len(read(table_csv(tmp_path / "t.csv", split("#", ordinary)), TASK).ids) == NUM


def test_sides_that_lie_far_apart_are_questioned(tmp_path):
    image = MemoryVolume(np.zeros((60, 60, 60), np.uint8), (100.0, 100.0, 100.0))
    points = np.random.default_rng(1).integers(0, 59, (NUM, 3))
    far = (points + np.array([30, 0, 0])) % 60
    path = table_csv(tmp_path / "t.csv", split("#", points) | split("pre_#", points) | split("post_#", far))
    with pytest.raises(InputError, match=r"presynaptic point and postsynaptic point lie 3000 nm apart .median."):
        read(path, SynapsePolarity(image.voxel_size_nm), image)
    objects = read(path, SynapsePolarity(image.voxel_size_nm), image, table_resolution_nm=image.voxel_size_nm)
    assert any("which is far for a synapse" in line for line in objects.understood)
    assert len(read(path, Mitochondria(image.voxel_size_nm), image).ids) == NUM  # the sides do not matter


@pytest.mark.parametrize(
    ("columns", "settings", "sentences"),
    [
        (split("pre_#", PRE) | split("#", CENTER), {}, ["no column post_z, post_y, post_x", "a point on both sides"]),
        (split("pre_#", PRE), {}, ["no column z, y, x"]),
        (split("#", CENTER) | {"pre_x": range(NUM)}, {}, ["no column pre_z, pre_y; a point needs all"]),
        (split("#", CENTER) | {"x_pre_nm": range(NUM)}, {}, ["no column z_pre_nm, y_pre_nm"]),
        ({"pt_position": ["0101000080" * 3] * NUM}, {}, ["pt_position holds '0101000080", "not three numbers"]),
        (split("#", CENTER) | {"X": range(NUM)}, {}, ["columns x and X, which say the same"]),
        (split("#", CENTER), {"columns": {"z": "depth"}}, ["source.columns lacks y, x"]),
        (split("#", CENTER), {"columns": {"center": "where"}}, ["no column where; source.columns names it"]),
        (split("#", CENTER), {"columns": {"id": "name"}}, ["no column name; source.columns names it"]),
        (split("#_nm", CENTER, SIZE), {"table_resolution_nm": (40.0, 8.0, 8.0)}, ["are named as nm", "also pass"]),
        ({"position": ["[1, 2, 3]"] * 29 + ["[1, 2]"]}, {}, ["row 30, column position: got '[1, 2]'; expected three"]),
        ({"id": IDS, "position": ["[1, 2, 3]"] * 29 + [""]}, {}, ["row 30, column position: got nothing"]),
        ({"position": ["[1, 2, 3]"] * 29 + ["[1, 2, nan]"]}, {}, ["row 30, column position"]),
        ({"position": ["[1, 2, 3]"] * 29 + ["[1,0 2,0 3,0]"]}, {}, ["row 30, column position"]),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_understood_are_refused(tmp_path, columns, settings, sentences):
    with pytest.raises(InputError) as error:
        read(table_csv(tmp_path / "t.csv", columns), **settings)
    assert all(sentence in str(error.value) for sentence in sentences), error.value


def test_columns_can_be_named_and_ignored(tmp_path):
    columns = {"name": [f"s{i}" for i in range(NUM)], "p": [9] * NUM} | split("deep_#", CENTER) | split("pre_#", PRE)
    names = {"z": "deep_z", "y": "deep_y", "x": "deep_x", "pre": None, "id": "name", "score": None}
    objects = read(table_csv(tmp_path / "t.csv", columns), columns=names)
    assert_points(objects, sides=False)
    assert objects.pre is None and objects.ids[0] == "s0" and "not used: p, pre_x, pre_y, pre_z" in objects.understood


@pytest.mark.parametrize("name", ["Slice", "Z (slice)"])
def test_slices_that_are_counted_from_1_are_not_taken_for_z(tmp_path, name):
    table = table_csv(tmp_path / "t.csv", {name: [9] * NUM, "Y": [9] * NUM, "X": [9] * NUM})
    with pytest.raises(InputError, match=r"counted from 1 .* minus 1"):
        read(table, columns={"z": name, "y": "Y", "x": "X"})


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("source.columns={zz: z}", "'zz' is none of our columns; the nearest is"),
        ("source.table_resolution_nm=4,4,40", "Did you pass X, Y, Z?"),
        ("source.table_resolution_nm=4", "table_resolution_nm"),
        ("source.list_order=yxz", "list_order"),
    ],
)
def test_settings_of_a_table_are_checked(setting, words):
    values = apply_overrides({"source": {"kind": "objects", "uri": "t.csv"}}, [setting])
    with pytest.raises((ValueError, ConfigError)) as error:
        SourceConfig.model_validate(values["source"])
    assert words in str(error.value)
    for field in ({"columns": {"z": "a"}}, {"table_resolution_nm": (1, 1, 1)}, {"list_order": "zyx"}):
        with pytest.raises(ValueError, match="are for tables of objects, not for a segmentation"):
            SourceConfig(kind="segmentation", uri="s.h5:labels", **field)


# -- ids --------------------------------------------------------------------------------------------------------------


def with_ids(tmp_path, ids, **kinds):
    table = pa.table({"id": pa.array(ids, **kinds)} | {axis: CENTER[: len(ids), i] for i, axis in enumerate("zyx")})
    pq.write_table(table, tmp_path / "t.parquet")
    return read(tmp_path / "t.parquet", TASK).ids


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([1.0, 2.0, 3.0], [1, 2, 3]),
        ([2.0**53, 1.0], [2**53, 1]),
        (["12.0", "7.00"], [12, 7]),
        (["1.200000000000000000e+01", "7.000000000000000000e+00"], [12, 7]),
        (["12.0", "b"], ["12.0", "b"]),
        (["7.5", "8.25"], ["7.5", "8.25"]),
        (["12e4", "3af9"], ["12e4", "3af9"]),
        (["007", "8"], ["007", "8"]),
        ([str(2**64), "1"], [str(2**64), "1"]),
        ([str(2**64 - 1), "-1"], [str(2**64 - 1), "-1"]),
        ([2**62, 2**62 + 1, 2**62 + 2, 2**62 + 3], [2**62, 2**62 + 1, 2**62 + 2, 2**62 + 3]),
        ([864691135000000000], [864691135000000000]),  # one round number may be chance
        ([1000, 2000, 3000, 4000], [1000, 2000, 3000, 4000]),
    ],
)
def test_ids_keep_all_of_their_digits(tmp_path, given, wanted):
    assert with_ids(tmp_path, given) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([float(i) for i in IDS], "went through a float or a spreadsheet (30 rows"),
        ([1.0, 2.0**53 + 2], "row 2, column id: got 9007199254740994.0; expected an id with all of its digits"),
        (["8.64691E+17", "8.64692E+17"], "got '8.64691E+17'"),
        (["9E+17"], "got '9E+17'"),
        (["864691135012345678.0"], "went through a float"),
        (["8.646911350123456512e+17"], "went through a float"),
        ([int(float(i)) for i in IDS], "all of them are numbers that a float can hold"),
        ([i // 1000 * 1000 for i in IDS], "after 15 digits all of them have zeros, as a spreadsheet leaves them"),
        ([str(i // 1000 * 1000) for i in IDS], "write a letter before each"),
        ([2**62 + 1024 * i for i in range(4)], "numbers that a float can hold"),
        ([1, 2, 1], "row 3, column id: got 1; expected a unique id, but row 1 has the same one"),
        (["12", "12.0"], "row 2, column id: got '12.0'; expected a unique id, but row 1"),
        ([1, None], "row 2, column id: got nothing; expected a number or a name"),
        ([float("nan"), 2.0], "row 1, column id"),
    ],
)
def test_ids_that_lost_digits_are_refused(tmp_path, given, words):
    with pytest.raises(InputError) as error:
        with_ids(tmp_path, given)
    assert words in str(error.value)


def test_ids_of_a_sheet_with_decimal_commas(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{{}};{z},5;{y};{x}" for z, y, x in CENTER[:2].tolist()]
    path.write_text("id;z;y;x\n" + rows[0].format("12,0") + "\n" + rows[1].format("7") + "\n")
    assert read(path, TASK).ids == [12, 7]
    path.write_text("id;z;y;x\n" + rows[0].format("8,64691E+17") + "\n" + rows[1].format("7") + "\n")
    with pytest.raises(InputError, match=r"row 1, column id: got '8,64691E.17'; expected an id with all of its digits"):
        read(path, TASK)


@pytest.mark.parametrize("ids", [[2**64 - 1, 5], [-5, 6], ["a", "b"]])
def test_ids_are_stored_with_the_candidates(tmp_path, ids):
    painted = np.zeros(SHAPE, np.uint32)
    painted[1, 1, 1], painted[3, 3, 3] = 1, 2
    found = extract(painted, np.full(SHAPE, 255, np.uint8), TASK, (0, 0, 0))
    write_parts([to_table(found, task="mitochondria", extra={"source_id": ids})], tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["source_id"].to_pylist() == ids
