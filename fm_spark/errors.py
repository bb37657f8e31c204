"""The errors that a person may meet; each carries one message that names the value and the cure.

Exit codes: 2 for a mistake of the user's (configuration, input, order of jobs), 1 for a failure of the system.
"""

from __future__ import annotations


class FmSparkError(Exception):
    """Base of every error that fm_spark raises on purpose."""

    exit_code = 1


class ConfigError(FmSparkError):
    """A configuration key or a command-line argument is unknown, of the wrong type or out of range."""

    exit_code = 2


class InputError(FmSparkError):
    """The input is missing, of an unknown layout, or holds rows that cannot be used."""

    exit_code = 2


class TableError(FmSparkError):
    """A table is missing, is not ours, or cannot be written; its last good version is untouched."""

    exit_code = 2


class StorageError(FmSparkError):
    """The place of the tables does not take what is written: the disk is full or read-only; nothing became visible."""


class LockError(FmSparkError):
    """Another job writes the same tables."""


class GateError(FmSparkError):
    """A run is not good enough to be published; what was published before stays."""


class EnvironmentProblem(FmSparkError):
    """The machine lacks something: Java, a package, a supported version, or has Spark Connect switched on."""

    exit_code = 2


class DivergenceError(FmSparkError):
    """Training left the finite numbers; the message names epoch, round, loss, rate and what to change."""


class CapacityError(FmSparkError):
    """A configuration cannot fit in memory; the message has the number that does not fit."""

    exit_code = 2
