"""The ways in which a stage ends, as exceptions that carry an exit code (sysexits.h) and one plain sentence."""


class PipelineError(Exception):
    """Base of all expected failures. `exit_code` tells a scheduler what to do with the job."""

    exit_code = 70


class TryAgain(PipelineError):
    """The work is saved and goes on at the next attempt: time is up, the disk is full, another trainer holds it."""

    exit_code = 75


class BadData(PipelineError):
    """An input file is missing, damaged, or not what it was when it was recorded."""

    exit_code = 65


class BadConfig(PipelineError):
    """The configuration asks for something that does not exist or cannot work."""

    exit_code = 78


class Bug(PipelineError):
    """The code broke its own contract."""

    exit_code = 70


MARKER = "failed.json"  # beside the output of a stage that failed for good
PERMANENT = (BadData.exit_code, BadConfig.exit_code, Bug.exit_code)
