# What a dataset needs once: its array, a feature extractor, reference statistics, frozen kernels, floor and ceiling.
DATASET = "results/{experiment}/{dataset}"


rule data:
    input:
        config=DATASET + "/data/config.json",
    output:
        manifest=DATASET + "/data/manifest.json",
    log:
        DATASET + "/data/log.txt",
    benchmark:
        DATASET + "/data/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
    shell:
        STAGE
        + " data --config {input.config} --output {output.manifest} "
        + RETRY
        + " &> {log}"


rule classifier:
    input:
        config=DATASET + "/classifier/config.json",
        data=rules.data.output.manifest,
    output:
        manifest=DATASET + "/classifier/manifest.json",
    log:
        DATASET + "/classifier/log.txt",
    benchmark:
        DATASET + "/classifier/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        STAGE + " classifier --config {input.config} --data {input.data}"
        " --output {output.manifest} " + RETRY + " &> {log}"


rule reference:
    input:
        config=DATASET + "/reference/config.json",
        data=rules.data.output.manifest,
        classifier=rules.classifier.output.manifest,
    output:
        manifest=DATASET + "/reference/manifest.json",
    log:
        DATASET + "/reference/log.txt",
    benchmark:
        DATASET + "/reference/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        STAGE
        + " reference --config {input.config} --data {input.data} --classifier {input.classifier}"
        " --output {output.manifest} " + RETRY + " &> {log}"


rule controls:
    input:
        config=DATASET + "/controls/config.json",
        data=rules.data.output.manifest,
        classifier=rules.classifier.output.manifest,
        reference=rules.reference.output.manifest,
    output:
        scores=DATASET + "/controls/scores.parquet",
    log:
        DATASET + "/controls/log.txt",
    benchmark:
        DATASET + "/controls/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        STAGE
        + " controls --config {input.config} --data {input.data} --classifier {input.classifier}"
        " --reference {input.reference} --output {output.scores} "
        + RETRY
        + " &> {log}"


rule bandwidths:
    input:
        config=DATASET + "/bandwidths/config.json",
        data=rules.data.output.manifest,
    output:
        manifest=DATASET + "/bandwidths/manifest.json",
    log:
        DATASET + "/bandwidths/log.txt",
    benchmark:
        DATASET + "/bandwidths/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
    shell:
        STAGE + " bandwidths --config {input.config} --data {input.data}"
        " --output {output.manifest} " + RETRY + " &> {log}"
