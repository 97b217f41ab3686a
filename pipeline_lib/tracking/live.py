"""A live view: the push, again and again while an experiment runs. It asks nothing of the jobs but their files."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from pipeline_lib.exits import PipelineError
from pipeline_lib.tracking import push
from pipeline_lib.tracking.content import FAILED, FINISHED

log = logging.getLogger(__name__)


def run(folder: Path, minutes: float) -> int:
    """Push every so many minutes until all is finished or has failed; returns 0.

    No file that the workflow knows is written, so the rule `track` still runs. What goes wrong at the first push is
    raised as in `push.run`; later it is told, and the next push makes up for it.
    """
    ended = _push(folder)
    while not ended:
        time.sleep(60 * minutes)
        try:
            ended = _push(folder)
        except PipelineError as error:
            log.warning("%s", error)
    return 0


def _push(folder: Path) -> bool:
    """Whether nothing is left to come."""
    experiment = json.loads((folder / "config" / "experiment.json").read_text())  # it may change meanwhile
    if not experiment["tracking"]["enabled"]:
        log.info("tracking is switched off (tracking.enabled: false); nothing is pushed to MLflow")
        return True
    _, contents = push.push(folder, experiment)
    return ended(experiment, contents)


def ended(experiment: dict[str, Any], contents: push.Found) -> bool:
    """Whether every run and every dataset is finished or has failed."""
    found = [run for one in contents.values() if one for run in (one[0], *one[1])]
    expected = len(contents) + len(experiment["instances"])
    return len(found) == expected and all(run.status in (FINISHED, FAILED) for run in found)
