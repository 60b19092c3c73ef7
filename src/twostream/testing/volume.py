"""The exam of a volume format."""

from __future__ import annotations

import gc
import pickle
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from twostream.base.errors import NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box
from twostream.volume import Volume, open_volume, read_padded

SHAPE_ZYX = (5, 17, 33)
"""Three different extents, so that swapped axes cannot go unnoticed."""
VOXEL_SIZE_NM = (40.0, 4.0, 5.0)
OTHER_SIZE_NM = (40.0, 8.0, 10.0)
OFFSET_NM = (120.0, -8.0, 35.0)
"""Of another place, in whole voxels: (3, -2, 7)."""
NUM_BOXES = 60
NUM_THREADS = 8


def sample(dtype: str = "uint8", num_channels: int = 0) -> np.ndarray:
    """(5, 17, 33) or (C, 5, 17, 33) random values over the whole range of ``dtype``, its ends included."""
    rng = np.random.default_rng(0)
    shape = ((num_channels,) if num_channels else ()) + SHAPE_ZYX
    if np.dtype(dtype).kind == "f":
        array = rng.normal(size=shape).astype(dtype)
        array.flat[:3] = np.finfo(dtype).min, np.nan, np.finfo(dtype).max
        return array
    ends = np.iinfo(dtype)
    array = rng.integers(ends.min, ends.max, shape, dtype, endpoint=True)
    array.flat[:2] = ends.min, ends.max
    return array


def boxes() -> list[Box]:
    """Boxes inside the sample: its corners, one voxel, no voxel, all voxels, and many at random."""
    rng = np.random.default_rng(1)
    whole = Box.whole(SHAPE_ZYX)
    last = Box.from_corners([n - 1 for n in SHAPE_ZYX], SHAPE_ZYX)
    found = [whole, Box((0, 0, 0), (1, 1, 1)), last, Box((1, 2, 3), (0, 4, 5))]
    for _ in range(NUM_BOXES):
        ends = np.sort([rng.integers(0, n + 1, 2) for n in SHAPE_ZYX], axis=1)
        found.append(Box.from_corners(ends[:, 0].tolist(), ends[:, 1].tolist()))
    return found


def boxes_outside() -> list[Box]:
    """Boxes that reach past one face each: by one voxel, or by so many that they start outside."""
    found = []
    for axis, size in enumerate(SHAPE_ZYX):
        for start in (-1, size - 1, size, -size):
            offset = [0, 0, 0]
            offset[axis] = start
            found.append(Box((offset[0], offset[1], offset[2]), (2, 2, 2)))
    return found


def check_reads(volume: Volume, array: np.ndarray) -> None:
    """Every box holds what the array holds there."""
    for box in boxes():
        found = volume.read(box)
        assert found.dtype == array.dtype, box
        np.testing.assert_array_equal(found, array[(..., *box.slices)], err_msg=f"box {box}", strict=True)


class VolumeExam:
    """What every volume format must do.

    Supply ``make``, and ``create`` if the format can be written. Say ``dtypes``, ``has_channels``,
    ``states_voxel_size`` and ``in_memory`` where the format differs from what stands below.

    Examined: extents, voxel size and dtype; that any box, half-open and ZYX, holds what numpy would cut out; that boxes
    outside are refused, negative ones too; channels; that arrays read may be changed without changing the volume;
    reading from eight threads; pickling, with an address and not the voxels; opening again by ``uri``; voxel sizes that
    are missing or contradict; missing and damaged files; what is said of the axes; and for formats that can be written:
    that a box is written and nothing else, that the place comes back, and that what does not fit is refused.

    Attributes:
        dtypes: numpy names of the dtypes that the format stores.
        has_channels: whether it stores (C, Z, Y, X).
        states_voxel_size: whether its files hold the voxel size. False: it is passed to ``open_volume`` each time.
        in_memory: whether there are no files, so that ``uri`` does not open the volume again.
        writes: whether ``create`` is supplied.
        states_offset: whether its files can hold the place, any place in whole voxels.
    """

    dtypes: ClassVar[Sequence[str]] = ("uint8", "uint16", "uint32", "uint64", "int32", "float32")
    has_channels: ClassVar[bool] = True
    states_voxel_size: ClassVar[bool] = True
    in_memory: ClassVar[bool] = False
    writes: ClassVar[bool] = False
    states_offset: ClassVar[bool] = True

    def make(self, folder: Path, array: np.ndarray, voxel_size_nm: tuple[float, float, float]) -> Volume:
        """Store ``array``, (Z, Y, X) or (C, Z, Y, X), in ``folder`` and open it for reading.

        Write the files with another library or by hand, not with the code under examination.
        """
        raise NotImplementedError

    def create(
        self,
        folder: Path,
        *,
        shape_zyx: tuple[int, int, int],
        dtype: str,
        voxel_size_nm: tuple[float, float, float],
        num_channels: int,
        offset_nm: tuple[float, float, float] | None,
    ) -> Volume:
        """A new volume in ``folder``, always under the same name, open for writing; as ``create_volume`` does."""
        raise NotImplementedError

    # -- reading --------------------------------------------------------------------------------------------------

    def test_it_knows_its_extent_and_its_voxels(self, tmp_path: Path) -> None:
        array = sample()
        volume = self.make(tmp_path, array, VOXEL_SIZE_NM)
        assert isinstance(volume, Volume)
        assert volume.shape_zyx == SHAPE_ZYX and volume.box == Box.whole(SHAPE_ZYX)
        assert [type(n) for n in volume.shape_zyx] == [int] * 3  # numpy's integers do not go into JSON
        assert volume.num_channels == 0
        assert volume.voxel_size_nm == VOXEL_SIZE_NM and [type(v) for v in volume.voxel_size_nm] == [float] * 3
        assert isinstance(volume.dtype, np.dtype) and volume.dtype == array.dtype
        chunk = volume.chunk_shape_zyx
        assert chunk is None or (len(chunk) == 3 and all(type(n) is int and n > 0 for n in chunk))

    def test_it_says_how_it_was_understood(self, tmp_path: Path) -> None:
        for num_channels in (0, 2) if self.has_channels else (0,):
            folder = tmp_path / str(num_channels)
            folder.mkdir()
            volume = self.make(folder, sample(num_channels=num_channels), VOXEL_SIZE_NM)
            metadata = volume.metadata
            assert set("zyx") <= set(metadata.axes) and ("c" in metadata.axes) == (num_channels > 0)
            words = (metadata.axes_from, metadata.voxel_size_from, metadata.offset_from, *metadata.notes)
            assert all(isinstance(word, str) for word in words)
            assert bool(metadata.offset_from) == (volume.offset_nm is not None) or self.in_memory

    def test_every_box_holds_what_was_stored(self, tmp_path: Path) -> None:
        array = sample()
        check_reads(self.make(tmp_path, array, VOXEL_SIZE_NM), array)

    def test_every_dtype_comes_back_to_the_last_bit(self, tmp_path: Path) -> None:
        for dtype in self.dtypes:
            (tmp_path / dtype).mkdir()
            array = sample(dtype)
            volume = self.make(tmp_path / dtype, array, VOXEL_SIZE_NM)
            assert volume.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(volume.read(volume.box), array, strict=True)

    def test_channels_come_first(self, tmp_path: Path) -> None:
        if not self.has_channels:
            pytest.skip("this format stores no channels")
        array = sample(num_channels=2)
        volume = self.make(tmp_path, array, VOXEL_SIZE_NM)
        assert (volume.num_channels, volume.shape_zyx) == (2, SHAPE_ZYX)
        check_reads(volume, array)

    def test_a_box_outside_is_refused(self, tmp_path: Path) -> None:
        volume = self.make(tmp_path, sample(), VOXEL_SIZE_NM)
        for box in boxes_outside():
            with pytest.raises(VolumeError, match=rf"cannot read box {box} .* the volume holds 0:5,0:17,0:33"):
                volume.read(box)

    def test_arrays_that_were_read_may_be_changed(self, tmp_path: Path) -> None:
        array = sample()
        volume = self.make(tmp_path, array, VOXEL_SIZE_NM)
        found = volume.read(volume.box)
        found[...] = 7
        np.testing.assert_array_equal(volume.read(volume.box), array)

    def test_eight_threads_read_at_once(self, tmp_path: Path) -> None:
        array = sample("uint16")
        volume = self.make(tmp_path, array, VOXEL_SIZE_NM)
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for _ in pool.map(lambda _: check_reads(volume, array), range(NUM_THREADS)):
                pass

    def test_padding_mirrors(self, tmp_path: Path) -> None:
        array = sample()
        padded = read_padded(self.make(tmp_path, array, VOXEL_SIZE_NM), Box((-1, -2, 25), (7, 21, 12)))
        expected = np.pad(array, [(1, 1), (2, 2), (0, 4)], mode="symmetric")[:, :, 25:]
        np.testing.assert_array_equal(padded, expected)

    def test_it_can_be_pickled(self, tmp_path: Path) -> None:
        array = np.random.default_rng(0).integers(0, 255, (8, 128, 128), np.uint8)
        volume = self.make(tmp_path, array, VOXEL_SIZE_NM)
        volume.read(Box((0, 0, 0), (1, 1, 1)))  # whatever is opened late is open now
        packed = pickle.dumps(volume)
        if not self.in_memory:
            assert len(packed) < array.nbytes / 10  # where it is, not what it holds
        del volume
        gc.collect()
        arrived = pickle.loads(packed)
        assert (arrived.shape_zyx, arrived.voxel_size_nm, arrived.dtype) == ((8, 128, 128), VOXEL_SIZE_NM, np.uint8)
        np.testing.assert_array_equal(arrived.read(arrived.box), array)

    def test_a_volume_opened_for_reading_cannot_be_written(self, tmp_path: Path) -> None:
        if self.in_memory:
            pytest.skip("a volume in memory may be written")
        array = sample()
        volume = self.make(tmp_path, array, VOXEL_SIZE_NM)
        with pytest.raises(VolumeError, match="open for reading only"):
            volume.write(volume.box, np.zeros_like(array))
        np.testing.assert_array_equal(volume.read(volume.box), array)

    # -- opening --------------------------------------------------------------------------------------------------

    def _made(self, folder: Path, array: np.ndarray) -> str:
        """URI of a volume in ``folder``."""
        if self.in_memory:
            pytest.skip("there are no files")
        folder.mkdir(exist_ok=True)
        return self.make(folder, array, VOXEL_SIZE_NM).uri

    @property
    def _told(self) -> tuple[float, float, float] | None:
        """The voxel size that must be passed where the files hold none."""
        return None if self.states_voxel_size else VOXEL_SIZE_NM

    def test_its_uri_opens_it_again(self, tmp_path: Path) -> None:
        array = sample()
        uri = self._made(tmp_path, array)
        volume = open_volume(uri, self._told)
        assert volume.uri == uri and volume.voxel_size_nm == VOXEL_SIZE_NM
        np.testing.assert_array_equal(volume.read(volume.box), array)

    def test_a_voxel_size_is_demanded_or_must_agree(self, tmp_path: Path) -> None:
        uri = self._made(tmp_path, sample())
        assert open_volume(uri, VOXEL_SIZE_NM).voxel_size_nm == VOXEL_SIZE_NM
        if self.states_voxel_size:
            with pytest.raises(VolumeError):
                open_volume(uri, OTHER_SIZE_NM)
        else:
            assert open_volume(uri, OTHER_SIZE_NM).voxel_size_nm == OTHER_SIZE_NM
            with pytest.raises(NoVoxelSizeError):
                open_volume(uri)
        with pytest.raises(VolumeError, match="expected Z, Y, X"):
            open_volume(uri, VOXEL_SIZE_NM[::-1])

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        uri = self._made(tmp_path / "here", sample())
        gone = uri.replace(str(tmp_path / "here"), str(tmp_path / "gone"))
        assert gone != uri, "make must store the volume in the folder that it is given"
        with pytest.raises(VolumeError) as caught:
            open_volume(gone, self._told)
        assert str(tmp_path / "gone") in str(caught.value)

    @pytest.mark.parametrize("share", [0.5, 0.0])
    def test_a_damaged_file_is_an_error_or_does_no_harm(self, tmp_path: Path, share: float) -> None:
        """Each file is cut short in turn. Wrong voxels, or an error of another type, are faults."""
        array = sample("uint16" if "uint16" in self.dtypes else self.dtypes[0])
        uri = self._made(tmp_path / "whole", array)
        gc.collect()
        files = [path for path in sorted((tmp_path / "whole").rglob("*")) if path.is_file()]
        assert files, "make must store the volume in the folder that it is given"
        for number, path in enumerate(files):
            folder = tmp_path / f"damaged{number}"
            shutil.copytree(tmp_path / "whole", folder)
            damaged = folder / path.relative_to(tmp_path / "whole")
            damaged.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
            try:
                volume = open_volume(uri.replace(str(tmp_path / "whole"), str(folder)), self._told)
                found = volume.read(volume.box)
            except VolumeError:
                continue
            np.testing.assert_array_equal(found, array, err_msg=f"{path.name} was cut short", strict=True)

    # -- writing --------------------------------------------------------------------------------------------------

    def _new(
        self,
        folder: Path,
        dtype: str = "uint8",
        num_channels: int = 0,
        offset_nm: tuple[float, float, float] | None = None,
    ) -> Volume:
        if not self.writes:
            pytest.skip("this format is only read")
        return self.create(
            folder,
            shape_zyx=SHAPE_ZYX,
            dtype=dtype,
            voxel_size_nm=VOXEL_SIZE_NM,
            num_channels=num_channels,
            offset_nm=offset_nm,
        )

    def _reader(self, volume: Volume) -> Callable[[], np.ndarray]:
        """What somebody else reads of a volume that is being written."""
        other = volume if self.in_memory else open_volume(volume.uri, self._told)
        return lambda: other.read(other.box)

    def test_the_place_comes_back(self, tmp_path: Path) -> None:
        if not self.states_offset:
            pytest.skip("this format states no place")
        volume = self._new(tmp_path, offset_nm=OFFSET_NM)
        others = [volume] if self.in_memory else [volume, open_volume(volume.uri, self._told)]
        for found in (*others, pickle.loads(pickle.dumps(volume))):
            assert found.offset_nm is not None, "the place was dropped"
            np.testing.assert_allclose(found.offset_nm, OFFSET_NM, rtol=1e-6)
            assert [type(v) for v in found.offset_nm] == [float] * 3
        if not self.in_memory:
            assert others[1].metadata.offset_from, "it is not said where the place was found"

    def test_a_volume_without_a_place_has_none_or_begins_at_zero(self, tmp_path: Path) -> None:
        volume = self._new(tmp_path)
        others = [] if self.in_memory else [open_volume(volume.uri, self._told)]
        assert all(found.offset_nm in (None, (0.0, 0.0, 0.0)) for found in (volume, *others))

    def test_a_new_volume_is_zero_and_has_the_requested_shape(self, tmp_path: Path) -> None:
        volume = self._new(tmp_path, num_channels=2 if self.has_channels else 0)
        assert (volume.shape_zyx, volume.voxel_size_nm, volume.dtype) == (SHAPE_ZYX, VOXEL_SIZE_NM, np.uint8)
        assert volume.num_channels == (2 if self.has_channels else 0)
        found = self._reader(volume)()
        assert found.shape == ((2,) if self.has_channels else ()) + SHAPE_ZYX and not found.any()

    def test_a_box_is_written_and_nothing_else(self, tmp_path: Path) -> None:
        num_channels = 2 if self.has_channels else 0
        volume, array = self._new(tmp_path, "uint16", num_channels), sample("uint16", num_channels)
        expected = np.zeros_like(array)
        for box in boxes()[1:]:
            part = array[(..., *box.slices)] + np.uint16(box.num_voxels)
            # Not contiguous in memory: what is written is the values, whatever their strides.
            volume.write(box, np.asfortranarray(part))
            expected[(..., *box.slices)] = part
            np.testing.assert_array_equal(volume.read(volume.box), expected, err_msg=f"box {box}")
        np.testing.assert_array_equal(self._reader(volume)(), expected, strict=True)

    def test_invalid_writes_are_refused_and_change_nothing(self, tmp_path: Path) -> None:
        volume = self._new(tmp_path)
        box = Box((1, 2, 3), (2, 3, 4))
        for wrong in (np.ones((2, 3, 4), np.uint16), np.ones((4, 3, 2), np.uint8), np.ones((1, 3, 4), np.uint8)):
            with pytest.raises(VolumeError, match="got an array of"):
                volume.write(box, wrong)
        for outside in boxes_outside():
            with pytest.raises(VolumeError, match="cannot write box"):
                volume.write(outside, np.ones(outside.shape_zyx, np.uint8))
        assert not volume.read(volume.box).any()

    def test_a_pickled_copy_can_write(self, tmp_path: Path) -> None:
        volume, array = self._new(tmp_path), sample()
        if self.in_memory:
            pytest.skip("a volume in memory travels by value")
        pickle.loads(pickle.dumps(volume)).write(volume.box, array)
        np.testing.assert_array_equal(volume.read(volume.box), array)

    def test_nothing_is_created_over_what_is_there(self, tmp_path: Path) -> None:
        volume, array = self._new(tmp_path), sample()
        if self.in_memory:
            pytest.skip("there are no files")
        volume.write(volume.box, array)
        with pytest.raises(VolumeError, match="exists already"):
            self._new(tmp_path)
        np.testing.assert_array_equal(self._reader(volume)(), array)
