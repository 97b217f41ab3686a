# Error propagation in diffusion models: data -> train -> sample -> errors, scores -> tables, figures, report, MLflow.
# One experiment a configuration file: snakemake [--configfile configs/NAME.yaml]; default: config.yaml.
# Each rule is one command `python -m pipeline_lib STAGE`, its configuration the config.json beside its output.
import os
import sys

from snakemake.utils import min_version

# jobs on a cluster run the code that they were queued with
sys.path.insert(0, os.getenv("PIPELINE_CODE", ""))

from pipeline_lib.workflow import open_plan

min_version("9.27")
plan = open_plan(workflow)

RUN = "results/{experiment}/{dataset}/{method}/{variant}/s{seed}"
CELLS = "results/{experiment}/{dataset}/{method}/{variant}/s{seed}/{sampling}"


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/tune.smk"
include: "rules/measure.smk"
include: "rules/analytic.smk"
include: "rules/report.smk"


# After the rules: inputs `rules.NAME.output` lead to their rule at once only if its patterns had no constraints yet.
wildcard_constraints:
    experiment=plan.pattern("experiment"),
    dataset=plan.pattern("dataset"),
    method=plan.pattern("method"),
    variant=plan.pattern("variant"),
    seed=plan.pattern("seed"),
    sampling=plan.pattern("sampling"),
    problem=plan.pattern("problem"),


rule datasets:
    input:
        plan.made_once("data"),


rule all:
    default_target: True
    input:
        rules.report.output,
        rules.tables.output,
        rules.figures.output,
        plan.made_once(
            "data", "autoencoder", "latents", "classifier", "reference", "bandwidths"
        ),
        plan.manifests("train"),
        plan.manifests("sample"),
        plan.records("errors"),
        plan.records("trends"),
        plan.records("scores"),
        plan.progress,
        plan.trials,
        plan.controls(),
        plan.known_answers("exact"),
        plan.known_answers("coverage"),
        plan.known_answers("leak"),
        plan.known_answers("corrections"),
        f"{plan.root}/tracking/mlflow.json" if plan.tracked else [],


onerror:
    shell(
        f"for stage in tables figures report; do python -m pipeline_lib $stage {plan.name} || true; done"
    )
