"""A log that outlives its job: Snakemake empties a rule's own log at every attempt."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def kept(path: Path) -> Iterator[None]:
    """Append what is logged meanwhile to a file, too, after a line on who writes; an error at the end stands there."""
    package = logging.getLogger("pipeline_lib")
    with path.open("a") as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        package.addHandler(handler)
        package.info("job %s on %s", os.environ.get("SLURM_JOB_ID", "local"), socket.gethostname())
        try:
            yield
        except Exception as error:
            package.info("left: %s", error)
            raise
        finally:
            package.removeHandler(handler)
