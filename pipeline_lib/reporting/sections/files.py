"""The section of the files that lie beside the report."""

from pipeline_lib.reporting.page import Results, Section, render

CONTENTS = {
    "scores": "every score with its protocol, floor and ceiling, and why a cell has none",
    "score_difference": "every score less that of its control, paired by image, with its interval over samples",
    "cumulative_error": "MMD² at every measured t, with its interval and the null's quantile",
    "cumulative_error_difference": "MMD² less that of the control, paired by chain, at every step and over the curve",
    "trends": "whether and how fast each curve grows, with a verdict",
    "anatomy": "exposure bias, leak test, gain of perturbations and their kin at every measured t",
    "costs": "time, memory and device of every job",
    "costs_relative": "time, memory and network calls of a training step beside those of the control",
    "progress": "scores at every snapshot of the trainings",
    "equal_costs": "methods beside their controls at as many images, and at as many seconds of training",
    "averages": "scores against the length of the weight average",
    "tuning": "every trial of every search for constants of corrections",
    "tuned": "which constants each sampled cell uses, where they come from, and what the search cost",
    "theory": "the papers' claims, a row for each reading and chain",
    "exact": "every exact error of every chain at every step",
    "coverage": "the estimators against exact values",
    "leak": "true score down to a step, an imperfect model after it",
    "corrections": "corrections of the sampler on short exact chains",
}


def section(results: Results) -> Section:
    """Every table that is there."""
    contents = CONTENTS | {s.name: s.title for s in results.compared}
    there = {k: v for k, v in contents.items() if (results.folder / "tables" / f"{k}.csv").is_file()}
    return Section("Files", "files", render("files", {"table_names": there}))
