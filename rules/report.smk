# What a reader opens. These rules read records alone, so they also run by hand on what is there after a failure.


rule tables:
    input:
        summary="results/{experiment}/config/experiment.json",
        errors=plan.records("errors"),
        trends=plan.records("trends"),
        influences=plan.records("influences"),
        anatomy=plan.records("anatomy"),
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
            expand("results/{{experiment}}/tables/{table}.csv", table=plan.tables),
            caption="captions/tables.rst",
            category="Tables",
        ),
        expand(
            "results/{{experiment}}/tables/{table}.{form}",
            table=plan.tables,
            form=["parquet", "md"],
        ),
    log:
        "results/{experiment}/tables/log.txt",
    benchmark:
        "results/{experiment}/tables/benchmark.tsv"
    conda:
        "../envs/report.yaml"
    shell:
        "python -m pipeline_lib tables {wildcards.experiment} &> {log}"


rule figures:
    input:
        rules.tables.output,
        train=plan.manifests("train"),
    output:
        report(
            expand("results/{{experiment}}/figures/{figure}.svg", figure=plan.figures),
            caption="captions/figures.rst",
            category="Figures",
        ),
        expand("results/{{experiment}}/figures/{figure}.png", figure=plan.figures),
    log:
        "results/{experiment}/figures/log.txt",
    benchmark:
        "results/{experiment}/figures/benchmark.tsv"
    conda:
        "../envs/report.yaml"
    shell:
        "python -m pipeline_lib figures {wildcards.experiment} &> {log}"


rule report:
    input:
        rules.tables.output,
        rules.figures.output,
        sample=plan.manifests("sample"),
    output:
        report(
            "results/{experiment}/report.html",
            caption="captions/report.rst",
            category="Report",
        ),
    log:
        "results/{experiment}/config/report-log.txt",
    benchmark:
        "results/{experiment}/config/report-benchmark.tsv"
    conda:
        "../envs/report.yaml"
    shell:
        "python -m pipeline_lib report {wildcards.experiment} &> {log}"


rule track:
    input:
        rules.report.output,
        rules.figures.output,
        rules.tables.output,
        train=plan.manifests("train"),
        sample=plan.manifests("sample"),
    output:
        "results/{experiment}/tracking/mlflow.json",
    log:
        "results/{experiment}/tracking/log.txt",
    benchmark:
        "results/{experiment}/tracking/benchmark.tsv"
    conda:
        "../envs/report.yaml"
    shell:
        "python -m pipeline_lib track {wildcards.experiment} &> {log}"
