# Training and sampling. The output is a small manifest; weights and checkpoints lie in results/store, undeclared, since
# Snakemake deletes what it knows of before every attempt.
#
# `exec`: SLURM sends SIGTERM to all processes of a job. A shell in between would die of it at once, Snakemake after it,
# and with them the job, while the training still writes its last checkpoint.


rule train:
    input:
        unpack(plan.given("data", "init", "autoencoder")),
        config=f"{RUN}/train/config.json",
    output:
        manifest=f"{RUN}/train/manifest.json",
    log:
        f"{RUN}/train/log.txt",
    benchmark:
        f"{RUN}/train/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    threads: plan.threads
    resources:
        runtime=plan.train_minutes,
        mem_mb=plan.experiment.runtime.memory_mb,
        attempt=plan.attempt,
        gpu=plan.experiment.runtime.processes,
        nodes=plan.experiment.runtime.nodes,
    shell:
        "exec python -m pipeline_lib train --config {input.config} --data {input.data} --init {input.init}"
        " --autoencoder {input.autoencoder} --output {output.manifest}"
        " --processes {resources.gpu} --nodes {resources.nodes}"
        " --max-minutes {resources.runtime} --attempt {resources.attempt} &> {log}"


rule moments:
    input:
        data=plan.trained_on,
        config=f"{CELLS}/moments/config.json",
        train=rules.train.output.manifest,
    output:
        manifest=f"{CELLS}/moments/manifest.json",
    log:
        f"{CELLS}/moments/log.txt",
    benchmark:
        f"{CELLS}/moments/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "python -m pipeline_lib moments --config {input.config} --train {input.train} --data {input.data}"
        " --output {output.manifest} --attempt {resources.attempt} &> {log}"


rule sample:
    input:
        unpack(plan.given("autoencoder", "moments", "guide", "tuned")),
        config=f"{CELLS}/sample/config.json",
        train=rules.train.output.manifest,
    output:
        manifest=f"{CELLS}/sample/manifest.json",
    log:
        f"{CELLS}/sample/log.txt",
    benchmark:
        f"{CELLS}/sample/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=plan.experiment.runtime.processes,
        nodes=plan.experiment.runtime.nodes,
    shell:
        "python -m pipeline_lib sample --config {input.config} --train {input.train}"
        " --autoencoder {input.autoencoder} --moments {input.moments} --guide {input.guide}"
        " --tuned {input.tuned} --output {output.manifest}"
        " --processes {resources.gpu} --nodes {resources.nodes} --attempt {resources.attempt} &> {log}"
