"""The exceptions that are meant for the user, in one hierarchy. Knows nothing about the rest of ``twostream``.

    TwoStreamError                 base class; the command line prints the message without a traceback
    ├── InputError                 a file, array, option or table that the user gave cannot be used
    │   ├── ConfigError            a setting (YAML key or ``--set`` option) is unknown, or its value is out of range
    │   ├── NoSidesError           nothing tells which side of a synapse is which
    │   └── VolumeError            a volume cannot be opened, read or written
    │       └── NoVoxelSizeError   the file states no voxel size, and the user gave none
    ├── LedgerError                an answer, query or registration contradicts what the ledger has recorded
    │   └── LedgerBusyError        the ledger cannot be read or written at this moment; nothing was changed
    ├── TrainingError              training diverged
    ├── BlocksError                blocks of a volume could not be computed
    ├── ClusterError               the cluster that should compute blocks cannot be reached, or lost them
    └── ProjectError               the project folder is not in the state that the command needs

A message says what was found, what was expected and what to do.
"""


class TwoStreamError(Exception):
    """Base class of every error whose message is written for the user."""


class InputError(TwoStreamError, ValueError):
    """A file, array, option or table that the user gave cannot be used. Also a ``ValueError``."""


class ConfigError(InputError):
    """A setting is unknown, or its value is out of range."""


class NoSidesError(InputError):
    """Nothing tells which side of a synapse is which."""


class VolumeError(InputError):
    """A volume cannot be opened, read or written."""


class NoVoxelSizeError(VolumeError):
    """The file of a volume states no voxel size, and the user gave none."""


class LedgerError(TwoStreamError):
    """An answer, query or registration contradicts what the ledger has recorded."""


class LedgerBusyError(LedgerError):
    """The ledger cannot be read or written at this moment: it is locked, or its disk is full, read-only or broken.

    Nothing was changed, and the same call may succeed later.
    """


class TrainingError(TwoStreamError):
    """Training diverged: the loss is not a finite number."""


class ProjectError(TwoStreamError):
    """The project folder is not in the state that the command needs."""


class BlocksError(TwoStreamError):
    """Blocks of a volume could not be computed.

    Args:
        message: which, and why the first one could not.
        traceback: of the first one, where it was raised.
        is_ours: whether the reason is written for the user; else the traceback is shown to them too.
    """

    def __init__(self, message: str, *, traceback: str, is_ours: bool) -> None:
        super().__init__(message)
        self.traceback, self.is_ours = traceback, is_ours
        self.add_note(traceback)


class ClusterError(TwoStreamError):
    """The cluster that should compute blocks cannot be reached, or has lost them."""
