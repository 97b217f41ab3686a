"""How an optimiser step's batch is cut into what goes through the network at once."""

from pipeline_lib.config.base import load_part
from pipeline_lib.config.models import Run
from pipeline_lib.exits import BadConfig


def rows_at_once(run: Run, processes: int, micro_batch: int | None, where: str = "") -> int:
    """Images of one forward and backward pass: a process's share of the batch, or a micro-batch of it.

    Raises BadConfig where the batch cannot be cut into equal parts, or a part would split a group of images that an
    objective compares: such a loss is no mean over parts. `where` begins the sentence.
    """
    batch, group = run.training.batch_size, run.training.mmd_group
    rows = micro_batch or batch // processes
    where, micro = f"{where}: " if where else "", micro_batch or "null"
    if rows == 0 or batch % (processes * rows):
        cut = "1 process" if processes == 1 else f"{processes} processes"
        cut += f" with runtime.micro_batch {micro_batch}" if micro_batch else ""
        raise BadConfig(
            f"{where}training.batch_size is {batch}, which {cut} cannot share evenly; change runtime.processes"
            f"{' or runtime.micro_batch' if micro_batch else ''}."
        )
    if group and rows % group:
        raise BadConfig(
            f"{where}{rows} images at once (runtime.processes {processes}, runtime.micro_batch {micro}) "
            f"would split groups of training.mmd_group {group}, and the error of a group is no mean over its parts; "
            "take fewer processes or a larger micro-batch."
        )
    module, options = load_part("objectives", run.objective)
    if rows < batch and hasattr(module, "whole_batch") and module.whole_batch(options):
        raise BadConfig(
            f"{where}a term of {run.objective['name']} compares all {batch} images of a batch, so it cannot be split: "
            "set runtime.processes to 1 and runtime.micro_batch to null."
        )
    return rows
