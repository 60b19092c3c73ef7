"""The tree of errors that users may see. Knows nothing of the rest.

    TwoStreamError                 everything below; the command line prints it as one sentence
    ├── InputError                 what came in from outside is not usable: file, array, option, table
    │   ├── ConfigError            a YAML key or ``--set`` option is unknown or out of range
    │   └── VolumeError            a volume cannot be opened, read or written
    │       └── NoVoxelSizeError   its file states no voxel size, and none was given
    ├── LedgerError                an answer, query or registration contradicts what the ledger holds
    ├── TrainingError              a training has run away
    └── ProjectError               the project folder is not in the state the command needs

A message says what came, what was wanted and what to do.
"""


class TwoStreamError(Exception):
    """Root of every error that is the user's to read."""


class InputError(TwoStreamError, ValueError):
    """Something handed in from outside is not usable."""


class ConfigError(InputError):
    """A configuration key is unknown or its value is out of range."""


class VolumeError(InputError):
    """A volume cannot be opened, read or written."""


class NoVoxelSizeError(VolumeError):
    """A volume's file states no voxel size, and none was given."""


class LedgerError(TwoStreamError):
    """A request contradicts what the ledger holds."""


class TrainingError(TwoStreamError):
    """A training has run away: its loss is no number."""


class ProjectError(TwoStreamError):
    """The project folder is not in the state that the command needs."""
