# Measurements of trained runs: the cumulative error over t, and the scores of the samples.


rule errors:
    input:
        config=CELLS + "/errors/config.json",
        train=rules.train.output.manifest,
        data=rules.data.output.manifest,
        bandwidths=rules.bandwidths.output.manifest,
    output:
        errors=CELLS + "/errors/errors.parquet",
        trends=CELLS + "/errors/trends.parquet",
    log:
        CELLS + "/errors/log.txt",
    benchmark:
        CELLS + "/errors/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        STAGE
        + " errors --config {input.config} --train {input.train} --data {input.data}"
        " --bandwidths {input.bandwidths} --output {output.errors} --trends {output.trends} "
        + RETRY
        + " &> {log}"


rule scores:
    input:
        config=CELLS + "/scores/config.json",
        sample=rules.sample.output.manifest,
        classifier=rules.classifier.output.manifest,
        reference=rules.reference.output.manifest,
    output:
        scores=CELLS + "/scores/scores.parquet",
    log:
        CELLS + "/scores/log.txt",
    benchmark:
        CELLS + "/scores/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        STAGE
        + " scores --config {input.config} --sample {input.sample} --classifier {input.classifier}"
        " --reference {input.reference} --output {output.scores} "
        + RETRY
        + " &> {log}"
