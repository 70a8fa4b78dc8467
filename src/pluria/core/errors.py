"""Errors a user can meet, as one small tree.

    PluriaError            a mistake the user can mend; the command line exits with 2
    ├── CheckpointError    names, shapes, NaN, pickles, quantised files
    ├── FileFormatError    a `.pluria` file that is truncated, tampered with or from a newer version
    ├── DataError          labels out of range, empty splits, unreadable data files
    ├── RecipeError        a recipe that does not fit the methods it names
    └── EngineError        workers that are lost again and again, a cluster that does not answer

Wrong arguments to a function are plain `ValueError` and `TypeError`.
"""


class PluriaError(Exception):
    """Base of the errors that are the user's to mend; the message says what was given, wanted and what to do."""


class CheckpointError(PluriaError):
    """A checkpoint that does not fit its network or must not be rounded."""


class FileFormatError(PluriaError):
    """A `.pluria` file that cannot be read as written."""


class DataError(PluriaError):
    """A data set that is missing, malformed or does not fit the network."""


class RecipeError(PluriaError):
    """A recipe that is malformed or asks for what does not exist."""


class EngineError(PluriaError):
    """Workers that do not do their work: lost too often, or on a cluster that is not there."""
