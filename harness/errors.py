"""Errors that end a command, each one sentence for the user and an exit code.

    BenchError
    ├── BadInput            2   a flag, a file or the environment is wrong
    ├── TargetUnusable      3   the server cannot be reached, is not ready, or is another server
    └── ResultUnusable      2   a saved run cannot be read, or a result cannot be written

Exit codes of `bench`: 0 fine, 1 a gate is missed, 2 bad input, 3 target unusable, 4 the run is INVALID.
A request that fails is no error here: it is a record with its kind of error.
"""

EXIT_OK = 0
EXIT_GATE_MISSED = 1
EXIT_BAD_INPUT = 2
EXIT_TARGET_UNUSABLE = 3
EXIT_INVALID = 4


class BenchError(Exception):
    """Says what is wrong, where (file:line or flag), and what to do; never a traceback for the user."""

    exit_code = EXIT_BAD_INPUT


class BadInput(BenchError):
    exit_code = EXIT_BAD_INPUT


class TargetUnusable(BenchError):
    exit_code = EXIT_TARGET_UNUSABLE


class ResultUnusable(BenchError):
    exit_code = EXIT_BAD_INPUT
