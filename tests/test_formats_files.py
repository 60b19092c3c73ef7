"""TIFF, folders of images, .npy, NIfTI and HDF5: read as they are meant, or refused in a sentence."""

import json

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from twostream.base.errors import NoVoxelSizeError, VolumeError
from twostream.base.geometry import Box
from twostream.testing import VolumeExam
from twostream.volume import create_volume, open_volume

SIZE = (40.0, 5.0, 4.0)
OFFSET = (80.0, -15.0, 28.0)
"""In voxels (2, -3, 7)."""
ODD = (4, 2, 11)
SHAPE = (6, 9, 13)


# -- the exam -------------------------------------------------------------------------------------------------------


def ome_metadata(axes, size_nm):
    lengths = {f"PhysicalSize{axis}": v / 1000 for axis, v in zip("ZYX", size_nm, strict=True)}
    return {"axes": axes} | lengths


class TestOmeTiff(VolumeExam):
    """By tifffile, in micrometres, in one piece."""

    dtypes = ("uint8", "uint16", "uint32", "int32", "float32")

    def make(self, folder, array, voxel_size_nm):
        axes = "CZYX"[4 - array.ndim :]
        metadata = ome_metadata(axes, voxel_size_nm)
        tifffile.imwrite(folder / "a.ome.tif", array, ome=True, photometric="minisblack", metadata=metadata)
        return open_volume(str(folder / "a.ome.tif"))


class TestImageJ(VolumeExam):
    """A hyperstack by tifffile, big-endian as ImageJ writes it."""

    dtypes = ("uint8", "uint16", "float32")

    def make(self, folder, array, voxel_size_nm):
        z, y, x = voxel_size_nm
        if array.ndim == 4:
            array = array.transpose(1, 0, 2, 3)
        metadata = {"axes": "ZCYX" if array.ndim == 4 else "ZYX", "spacing": z / 1000, "unit": "um"}
        tifffile.imwrite(
            folder / "a.tif", array, imagej=True, byteorder=">", metadata=metadata, resolution=(1000 / x, 1000 / y)
        )
        return open_volume(str(folder / "a.tif"))


class TestPlainStripsOfTiff(VolumeExam):
    """Pages of compressed strips, without any metadata."""

    has_channels = False
    states_voxel_size = False

    def make(self, folder, array, voxel_size_nm):
        tifffile.imwrite(folder / "a.tif", array, compression="zlib", rowsperstrip=4, metadata=None)
        return open_volume(str(folder / "a.tif"), voxel_size_nm)


class TestTiledTiff(VolumeExam):
    """BigTIFF of big-endian tiles, by tifffile's own metadata."""

    def make(self, folder, array, voxel_size_nm):
        metadata = {"axes": "CZYX"[4 - array.ndim :], "voxel_size_nm": list(voxel_size_nm)}
        tifffile.imwrite(
            folder / "a.tif", array, tile=(16, 32), compression="zlib", bigtiff=True, byteorder=">",
            photometric="minisblack", metadata=metadata,
        )  # fmt: skip
        return open_volume(str(folder / "a.tif"))


class TestTiffPageByPage(VolumeExam):
    """Uncompressed pages, each written by itself, as loops over sections do."""

    has_channels = False
    states_voxel_size = False

    def make(self, folder, array, voxel_size_nm):
        with tifffile.TiffWriter(folder / "a.tiff") as writer:
            for section in array:
                writer.write(section, contiguous=False, metadata=None)
        return open_volume(str(folder / "a.tiff"), voxel_size_nm)


class TestOurTiff(VolumeExam):
    writes = True

    def make(self, folder, array, voxel_size_nm):
        channels = array.shape[0] if array.ndim == 4 else 0
        settings = {"dtype": array.dtype, "voxel_size_nm": voxel_size_nm, "num_channels": channels}
        volume = self.create(folder, shape_zyx=array.shape[-3:], offset_nm=None, **settings)
        volume.write(volume.box, array)
        return open_volume(str(folder / "a.tif"))

    def create(self, folder, **settings):
        return create_volume(str(folder / "a.tif"), **settings)


class TestOurTiffOf64Bits(TestOurTiff):
    dtypes = ("uint64",)

    def create(self, folder, **settings):
        dtype = np.dtype(settings["dtype"])
        return create_volume(str(folder / "a.tif"), **settings | {"dtype": dtype})


class StackExam(VolumeExam):
    dtypes = ("uint8", "uint16")
    has_channels = False
    states_voxel_size = False
    ending = ".png"

    def make(self, folder, array, voxel_size_nm):
        (folder / "sections").mkdir()
        for z, section in enumerate(array, 8):
            self.save(folder / "sections" / f"s{z}{self.ending}", section)
        return open_volume(str(folder / "sections"), voxel_size_nm)

    def save(self, path, section):
        Image.fromarray(section).save(path)


class TestPngs(StackExam):
    """s8, s9, s10 and so on, by Pillow."""


class TestTiffSections(StackExam):
    dtypes = ("uint8", "uint16", "uint32", "int32", "float32")
    ending = ".TIF"

    def save(self, path, section):
        tifffile.imwrite(path, section, tile=(16, 16), compression="zlib")


class TestNpy(VolumeExam):
    """In Fortran order and big-endian."""

    states_voxel_size = False

    def make(self, folder, array, voxel_size_nm):
        np.save(folder / "a.npy", np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))))
        return open_volume(str(folder / "a.npy"), voxel_size_nm)


class TestNifti(VolumeExam):
    """By nibabel, in micrometres; stored x fastest."""

    has_channels = False
    name = "a.nii"

    def make(self, folder, array, voxel_size_nm):
        nibabel = pytest.importorskip("nibabel")
        x, y, z = (v / 1000 for v in voxel_size_nm[::-1])
        dtype = array.dtype
        image = nibabel.Nifti1Image(array.transpose(), np.diag([x, y, z, 1]), dtype=dtype)
        image.header.set_xyzt_units("micron")
        nibabel.save(image, folder / self.name)
        return open_volume(str(folder / self.name))


class TestZippedNifti(TestNifti):
    name = "a.nii.gz"


class TestHdf5(VolumeExam):
    """By h5py, in x, y, z, named by ilastik's axistags, the size in micrometres on a group."""

    def make(self, folder, array, voxel_size_nm):
        names = "zyx"[::-1] if array.ndim == 3 else "xyzc"
        tags = json.dumps({"axes": [{"key": name, "typeFlags": 2} for name in names]})
        with h5py.File(folder / "a.h5", "w") as file:
            made = file.create_dataset("volumes/raw", data=array.transpose(), chunks=True, compression="gzip")
            made.attrs["axistags"] = tags
            made.attrs["element_size_um"] = [v / 1000 for v in voxel_size_nm[::-1]] + [1.0] * (array.ndim - 3)
        return open_volume(f"{folder / 'a.h5'}:volumes/raw")


class TestOurHdf5(VolumeExam):
    writes = True

    def make(self, folder, array, voxel_size_nm):
        channels = array.shape[0] if array.ndim == 4 else 0
        settings = {"dtype": array.dtype, "voxel_size_nm": voxel_size_nm, "num_channels": channels}
        volume = self.create(folder, shape_zyx=array.shape[-3:], offset_nm=None, **settings)
        volume.write(volume.box, array)
        return open_volume(volume.uri)

    def create(self, folder, **settings):
        return create_volume(f"{folder / 'a.h5'}:volumes/labels", **settings)
