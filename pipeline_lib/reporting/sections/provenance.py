"""The section of what everything was made from: fingerprints, contents, versions."""

from collections.abc import Mapping
from pathlib import Path

from pipeline_lib.records.tables import provenance
from pipeline_lib.reporting.collect import RECORDS, Job, State, manifest
from pipeline_lib.reporting.page import Results, Section, Table, render


def section(results: Results) -> Section:
    """Versions and contents, and every stored result."""
    given = results.folder, results.states
    values = {"about": about(*given), "fingerprints": fingerprints(*given)}
    return Section("Provenance", "provenance", render("provenance", values))


def fingerprints(folder: Path, states: Mapping[str, tuple[Job, State]]) -> Table:
    """Fingerprint and content hash of every stored result."""
    found = [(place, manifest(folder, place)) for place in states]
    rows = [[place, made.fingerprint[:16], made.content[:16], made.folder] for place, made in found if made]
    return Table(["result", "fingerprint", "content", "stored in"], rows)


def about(folder: Path, states: Mapping[str, tuple[Job, State]]) -> list[tuple[str, str]]:
    """The data's content hashes, and the versions of the software that made the records (all that occur)."""
    found: dict[str, dict[str, None]] = {}
    for place, (job, now) in states.items():
        if job.stage not in RECORDS or now.status != "done":
            continue
        try:
            values = provenance(folder / place / RECORDS[job.stage])
        except (OSError, ValueError):
            continue
        for name, version in values.get("versions", {}).items():
            found.setdefault(name, {})[version] = None
    places = [job.place for job, _ in states.values() if job.stage == "data"]
    data = [(f"content of {place}", made.content) for place in places if (made := manifest(folder, place))]
    return [*data, *((name, ", ".join(versions)) for name, versions in sorted(found.items()))]
