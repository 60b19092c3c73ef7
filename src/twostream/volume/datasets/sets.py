"""The table of public data sets: addresses, checksums, content, citation, and the sources of this information.

Knows what is published about each set; must not know how files are downloaded or converted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twostream.volume.datasets.arrays import Convert, Paths
from twostream.volume.datasets.cremi import cremi
from twostream.volume.datasets.fetch import Remote
from twostream.volume.datasets.jwr15 import PAIR, jwr15, jwr15_volumes
from twostream.volume.datasets.lucchi import lucchi
from twostream.volume.datasets.mitoem import mitoem

UNKNOWN_LICENSE = "not stated; ask the authors before redistributing"


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        name: its name on the command line.
        title: tissue, labels and voxel size, in words.
        labels: name of the label dataset in the converted files.
        voxel_size_nm: (z, y, x) in nm, used if the downloads state none.
        size: size of the downloads, in words.
        citation: the publication to cite.
        notes: where addresses, checksums and layout were found, and what was not verified.
        recipe: name of the recipe that uses the set.
        files: the files to download.
        volumes: for each converted volume, its file name without suffix, and the names of the downloads that it needs.
        convert: writes one volume.
        license: the license, in words.
        editions: groups of ``volumes`` of which an archive need not hold more than one; empty: it holds all volumes.
        held: with ``editions``: downloads -> the volumes that they hold; raises ``InputError`` for half a volume.
        unpacked: names of files that may lie among the downloads in place of ``files``.
    """

    name: str
    title: str
    labels: str
    voxel_size_nm: tuple[float, float, float]
    size: str
    citation: str
    notes: str
    recipe: str
    files: tuple[Remote, ...]
    volumes: Mapping[str, tuple[str, ...]]
    convert: Convert
    license: str = UNKNOWN_LICENSE
    editions: tuple[tuple[str, ...], ...] = ()
    held: Callable[[Paths], Sequence[str]] | None = None
    unpacked: tuple[str, ...] = ()


_EPFL = "https://documents.epfl.ch/groups/c/cv/cvlab-unit/www/data/%20ElectronMicroscopy_Hippocampus"
_HUB = "https://huggingface.co/datasets/pytc"
_MITOEM_CITATION = (
    "Wei et al., MitoEM Dataset: Large-Scale 3D Mitochondria Instance Segmentation from EM Images, MICCAI 2020, "
    "doi:10.1007/978-3-030-59722-1_7"
)
_MITOEM_NOTES = (
    "Addresses, sha256 and the names im/im0000.png, mito-train-v2/seg0000.tif, mito-val-v2/seg0400.tif: from public "
    "data loaders that fetch this set. Not tried."
)

DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            name="cremi",
            title="fruit fly brain, samples A, B, C: synaptic clefts; 40 x 4 x 4 nm",
            labels="clefts",
            voxel_size_nm=(40.0, 4.0, 4.0),
            size="three files of about 0.2 GB",
            citation="Funke, Saalfeld, Bock, Turaga, Perlman: MICCAI Challenge on Circuit Reconstruction from Electron "
            "Microscopy Images (CREMI), 2016, https://cremi.org",
            notes="Addresses and sha256: from public data loaders that fetch this set; layout: https://cremi.org/data. "
            "The host's certificate was reported as expired; the sha256 then verifies the content. Not tried.",
            recipe="cremi_cleft",
            files=tuple(
                Remote(
                    f"sample_{sample}_20160501.hdf",
                    (f"https://cremi.org/static/data/sample_{sample}_20160501.hdf",),
                    sha,
                )
                for sample, sha in (
                    ("A", "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d"),
                    ("B", "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8"),
                    ("C", "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052"),
                )
            ),
            volumes={f"cremi_{s.lower()}": (f"sample_{s}_20160501.hdf",) for s in "ABC"},
            convert=cremi,
        ),
        DataSet(
            name="jwr15",
            title="rat cortex (EM-R50), two volumes: synapses with polarity; about 30 x 8 x 8 nm",
            labels="synapses",
            voxel_size_nm=(30.0, 8.0, 8.0),
            size="not known",
            citation="Lin et al., Two Stream Active Query Suggestion for Active Learning in Connectomics, ECCV 2020, "
            "doi:10.1007/978-3-030-58523-5_7",
            notes="Address: PyTorch Connectomics' synapse tutorial. Names inside (vol3, vol4; im_Yx2.h5, syn_Yx2.h5): "
            "its configurations of other copies; img.h5 and syn.h5 in one folder: its notebooks. Voxel size derived, "
            "not stated. No checksum published. Not tried.",
            recipe="jwr15_polarity",
            files=(Remote("jwr15_synapse.zip", ("http://rhoana.rc.fas.harvard.edu/dataset/jwr15_synapse.zip",)),),
            volumes=dict.fromkeys(("jwr15_vol3", "jwr15_vol4", "jwr15"), ("jwr15_synapse.zip",)),
            convert=jwr15,
            editions=(("jwr15_vol3", "jwr15_vol4"), ("jwr15",)),
            held=jwr15_volumes,
            unpacked=PAIR,
        ),
        DataSet(
            name="lucchi",
            title="mouse hippocampus (EPFL), training and test volume: mitochondria; 5 x 5 x 5 nm",
            labels="mitochondria",
            voxel_size_nm=(5.0, 5.0, 5.0),
            size="four files, 0.5 GB in all if uncompressed",
            citation="Lucchi, Li, Fua: Learning for Structured Prediction Using Approximate Subgradient Descent with "
            "Working Sets, CVPR 2013; https://www.epfl.ch/labs/cvlab/data/data-em/",
            notes="Addresses (with the space before ElectronMicroscopy): several public programs that fetch this set. "
            "No checksum published. Not tried.",
            recipe="lucchi_mitochondria",
            files=tuple(
                Remote(name, (f"{_EPFL}/{name}",))
                for name in ("training.tif", "training_groundtruth.tif", "testing.tif", "testing_groundtruth.tif")
            ),
            volumes={
                "lucchi_train": ("training.tif", "training_groundtruth.tif"),
                "lucchi_test": ("testing.tif", "testing_groundtruth.tif"),
            },
            convert=lucchi,
        ),
        DataSet(
            name="mitoem-r",
            title="rat cortex, 1000 sections, 500 labelled: mitochondria; 30 x 8 x 8 nm",
            labels="mitochondria",
            voxel_size_nm=(30.0, 8.0, 8.0),
            size="about 15 GB, and as much again converted",
            citation=_MITOEM_CITATION,
            notes=_MITOEM_NOTES,
            recipe="mitoem_r",
            files=(
                Remote(
                    "EM30-R-im.zip",
                    (f"{_HUB}/EM30/resolve/main/EM30-R-im.zip",),
                    "6a2cac68adde5d01984542d3ee1d7753d1fa3e6eb2a042ce15ce297c95885bbe",
                ),
                Remote(
                    "EM30-R-mito-train-val-v2.zip",
                    (
                        f"{_HUB}/MitoEM/resolve/main/EM30-R-mito-train-val-v2.zip",
                        "https://www.dropbox.com/s/stncdytayhr8ggz/EM30-R-mito-train-val-v2.zip?dl=1",
                    ),
                    "c56380ac575428a818bd293ca3509d1249999846c3702ccbf11d308acdd2ae86",
                ),
            ),
            volumes={"mitoem_r": ("EM30-R-im.zip", "EM30-R-mito-train-val-v2.zip")},
            convert=mitoem,
        ),
        DataSet(
            name="mitoem-h",
            title="human cortex, 1000 sections, 500 labelled: mitochondria; 30 x 8 x 8 nm",
            labels="mitochondria",
            voxel_size_nm=(30.0, 8.0, 8.0),
            size="about 15 GB, and as much again converted",
            citation=_MITOEM_CITATION,
            notes=_MITOEM_NOTES + " The copy of the images on the Hub is padded by 40 sections and is not used.",
            recipe="mitoem_h",
            files=(
                Remote(
                    "EM30-H-im.zip",
                    ("https://www.dropbox.com/s/z41qtu4y735j95e/EM30-H-im.zip?dl=1",),
                    "98fe259f36a7d8d43f99981b7a0ef8cdeba2ce2615ff91595f428ae57207a041",
                ),
                Remote(
                    "EM30-H-mito-train-val-v2.zip",
                    (
                        "https://www.dropbox.com/s/dhf89bc14kemw4e/EM30-H-mito-train-val-v2.zip?dl=1",
                        f"{_HUB}/MitoEM/resolve/main/EM30-H-mito-train-val-v2.zip",
                    ),
                    "0e8ed292cfcd0c58701d9f4299244a1b66d6aeb506c85754c34f98a4eda0ef1b",
                ),
            ),
            volumes={"mitoem_h": ("EM30-H-im.zip", "EM30-H-mito-train-val-v2.zip")},
            convert=mitoem,
        ),
    )
}
