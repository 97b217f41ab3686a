"""The section of data whose score is known: verdicts on claims, coverage, bootstrap bias, leak."""

from pipeline_lib.reporting.page import Results, Section, render, table


def section(results: Results) -> Section | None:
    """None without an analytic section in the experiment."""
    if not results.experiment["analytic"]:
        return None
    from pipeline_lib.reporting import theory  # and with it torch, which takes seconds

    found = theory.records(results.folder, results.experiment)
    values = {
        "curves": results.pictures.figure("theory"),
        "leak_figure": results.pictures.figure("leak"),
        "claims": table(theory.summary(found["theory"])),
        "coverage": table(theory.coverage_summary(found["coverage"])),
        "bootstrap": table(theory.bootstrap_summary(found["coverage"])),
        "corrections_figure": results.pictures.figure("corrections"),
        "corrections": table(theory.corrections_summary(found["corrections"])),
        "leak": table(theory.leak_summary(found["leak"])),
    }
    return Section("Known answers", "theory", render("known_answers", values))
