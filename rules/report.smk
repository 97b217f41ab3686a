# What a reader opens. These rules read records alone, so they also run by hand on what is there after a failure.
#
# Their files have no wildcards: Snakemake compares every input of every job with all outputs that begin like it.
ROOT = plan.root


rule tables:
    input:
        summary=f"{ROOT}/config/experiment.json",
        errors=plan.records("errors"),  # and what the same jobs write beside them
        scores=plan.records("scores"),
        progress=plan.progress,
        controls=plan.controls(),
        trials=plan.trials,
        exact=plan.known_answers("exact"),
        coverage=plan.known_answers("coverage"),
        leak=plan.known_answers("leak"),
        corrections=plan.known_answers("corrections"),
    output:
        report(
            expand(f"{ROOT}/tables/{{table}}.csv", table=plan.tables),
            caption="captions/tables.rst",
            category="Tables",
        ),
        expand(
            f"{ROOT}/tables/{{table}}.{{form}}",
            table=plan.tables,
            form=["parquet", "md"],
        ),
    log:
        f"{ROOT}/tables/log.txt",
    benchmark:
        f"{ROOT}/tables/benchmark.tsv"
    conda:
        "../envs/report.yaml"
    params:
        experiment=plan.name,
    shell:
        "python -m pipeline_lib tables {params.experiment} &> {log}"


rule figures:
    input:
        rules.tables.output,
        train=plan.manifests("train"),
    output:
        report(
            expand(f"{ROOT}/figures/{{figure}}.svg", figure=plan.figures),
            caption="captions/figures.rst",
            category="Figures",
        ),
        expand(f"{ROOT}/figures/{{figure}}.png", figure=plan.figures),
    log:
        f"{ROOT}/figures/log.txt",
    benchmark:
        f"{ROOT}/figures/benchmark.tsv"
    conda:
        "../envs/report.yaml"
    params:
        experiment=plan.name,
    shell:
        "python -m pipeline_lib figures {params.experiment} &> {log}"


rule report:
    input:
        rules.tables.output,
        rules.figures.output,
        sample=plan.manifests("sample"),
    output:
        report(
            f"{ROOT}/report.html",
            caption="captions/report.rst",
            category="Report",
        ),
    log:
        f"{ROOT}/config/report-log.txt",
    benchmark:
        f"{ROOT}/config/report-benchmark.tsv"
    conda:
        "../envs/report.yaml"
    params:
        experiment=plan.name,
    shell:
        "python -m pipeline_lib report {params.experiment} &> {log}"


rule track:
    input:
        rules.report.output,  # made of all manifests
        rules.figures.output,
        rules.tables.output,
    output:
        f"{ROOT}/tracking/mlflow.json",
    log:
        f"{ROOT}/tracking/log.txt",
    benchmark:
        f"{ROOT}/tracking/benchmark.tsv"
    conda:
        "../envs/report.yaml"
    params:
        experiment=plan.name,
    shell:
        "python -m pipeline_lib track {params.experiment} &> {log}"
