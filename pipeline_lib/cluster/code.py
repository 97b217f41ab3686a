"""The code of queued jobs: a copy below work/code, made when Snakemake starts, so that an edit changes none of them."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pipeline_lib
from pipeline_lib.exits import TryAgain
from pipeline_lib.records.files import digest, sha256

FOLDER = Path("work/code")
VARIABLE = "PIPELINE_CODE"  # tells a job where its code is; the Snakefile reads it too


def pin() -> Path:
    """Copy the package, unless an equal copy is there, and let all jobs that are submitted from now on import it."""
    package = Path(pipeline_lib.__file__).parent
    files = sorted(p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    key = digest({str(p.relative_to(package)): sha256(p) for p in files})
    folder = FOLDER.absolute() / key[:16]
    if not folder.is_dir():
        _copy(package, folder)
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([inherited] if inherited else [])])
    os.environ["PYTHONSAFEPATH"] = "1"  # else `python -m pipeline_lib` takes what lies in the working folder
    os.environ[VARIABLE] = str(folder)
    return folder


def _copy(package: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".copying-"))
    try:
        shutil.copytree(package, temporary / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        temporary.chmod(0o755)
        with contextlib.suppress(OSError):  # another Snakemake has just made it
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check() -> None:
    """Raise TryAgain where this job was queued with a copy of the code and runs another one."""
    wanted = os.environ.get(VARIABLE)
    if wanted and not Path(pipeline_lib.__file__).is_relative_to(wanted):
        raise TryAgain(f"the code that this job was queued with is not in {wanted} any more; start Snakemake again.")
