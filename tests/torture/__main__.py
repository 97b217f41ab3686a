"""Kill trainings and write what came of it; ends with 1 where one of them did not end with the undisturbed weights."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import pandas as pd

from pipeline_lib.records import tables
from tests.torture.kills import STEPS, faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("kills", type=int, help="number of kills")
    parser.add_argument("output", type=Path, help="record to write, a row a kill")
    given = parser.parse_args()
    output = given.output.absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = []
        for row in faults(given.kills):
            rows.append(row)
            print(f"\r{len(rows)} of {given.kills} kills", end="", file=sys.stderr, flush=True)
    tables.write(output, rows, tables.FAULTS, {"kills": given.kills, "steps": STEPS})
    shown = pd.DataFrame(rows).groupby("kind").agg(kills=("kill", "size"), bit_equal=("bit_equal", "sum"))
    print(f"\n{shown}\n{rows[-1]['training']} trainings; {output}")
    return 0 if all(row["bit_equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
