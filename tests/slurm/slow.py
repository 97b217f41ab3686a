"""DDPM at the pace of a person, which writes down who did which step. A user's own file, as the tests' training.

The first process that trains takes `seconds` a step, so that there is time to break something; those after it hurry.
"""

import os
import signal
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pipeline_lib
from pipeline_lib.config.base import Model
from pipeline_lib.objectives import Batch, ddpm


class Options(Model):
    label: str
    seconds: float = 0.0
    die_writing: bool = False  # by SIGKILL in the middle of the second checkpoint
    hold: bool = False  # at step 10 until there is a file steps/go


class Slow(ddpm.DDPM):
    def __init__(self, options: Options) -> None:
        super().__init__(ddpm.Options())
        self.path = Path("steps") / options.label
        self.path.parent.mkdir(exist_ok=True)
        self.hold = options.hold
        self.seconds = 0.0 if self.path.exists() else options.seconds
        if options.die_writing and self.seconds:
            _die_writing()

    def terms(self, denoiser: Any, batch: Batch) -> Any:
        who = [os.environ[name] for name in ("SLURM_JOB_ID", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")]
        with self.path.open("a") as stream:
            print(batch.step, *who, os.getpid(), pipeline_lib.__file__, file=stream)
        time.sleep(self.seconds)
        while self.hold and batch.step == 10 and not self.path.with_name("go").exists():
            time.sleep(0.2)
        return super().terms(denoiser, batch)


def _die_writing() -> None:
    import torch

    save = torch.save

    def cut(state: Any, stream: Any) -> None:
        if not (Path(stream.name).parent / "checkpoint.pt").exists():
            save(state, stream)
            return
        buffer = BytesIO()
        save(state, buffer)
        stream.write(buffer.getvalue()[: buffer.tell() // 2])
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = cut


build = Slow
