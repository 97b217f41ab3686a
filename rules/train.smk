# Training and sampling. The output is a small manifest; weights and checkpoints lie in results/store, undeclared, since
# Snakemake deletes what it knows of before every attempt.


rule train:
    input:
        config=RUN + "/train/config.json",
        data=rules.data.output.manifest,
    output:
        manifest=RUN + "/train/manifest.json",
    log:
        RUN + "/train/log.txt",
    benchmark:
        RUN + "/train/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    threads: plan.threads
    resources:
        runtime=plan.train_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        STAGE
        + " train --config {input.config} --data {input.data} --output {output.manifest}"
        " --max-minutes {resources.runtime} " + RETRY + " &> {log}"


rule sample:
    input:
        config=CELLS + "/sample/config.json",
        train=rules.train.output.manifest,
    output:
        manifest=CELLS + "/sample/manifest.json",
    log:
        CELLS + "/sample/log.txt",
    benchmark:
        CELLS + "/sample/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        STAGE + " sample --config {input.config} --train {input.train}"
        " --output {output.manifest} " + RETRY + " &> {log}"
