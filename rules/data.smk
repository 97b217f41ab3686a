# What a dataset needs once: its array, a feature extractor, reference statistics, frozen kernels, floor and ceiling, and
# for diffusion on latents an autoencoder and what it makes of the training images.
DATASET = "results/{experiment}/{dataset}"


rule data:
    input:
        config=f"{DATASET}/data/config.json",
    output:
        manifest=f"{DATASET}/data/manifest.json",
    log:
        f"{DATASET}/data/log.txt",
    benchmark:
        f"{DATASET}/data/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
    shell:
        "python -m pipeline_lib data --config {input.config} --output {output.manifest}"
        " --attempt {resources.attempt} &> {log}"


rule autoencoder:
    input:
        config=f"{DATASET}/autoencoder/config.json",
        data=rules.data.output.manifest,
    output:
        manifest=f"{DATASET}/autoencoder/manifest.json",
    log:
        f"{DATASET}/autoencoder/log.txt",
    benchmark:
        f"{DATASET}/autoencoder/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.train_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "exec python -m pipeline_lib autoencoder --config {input.config} --data {input.data} --output {output.manifest}"
        " --max-minutes {resources.runtime} --attempt {resources.attempt} &> {log}"


rule latents:
    input:
        config=f"{DATASET}/latents/config.json",
        data=rules.data.output.manifest,
        autoencoder=rules.autoencoder.output.manifest,
    output:
        manifest=f"{DATASET}/latents/manifest.json",
    log:
        f"{DATASET}/latents/log.txt",
    benchmark:
        f"{DATASET}/latents/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "python -m pipeline_lib latents --config {input.config} --data {input.data} --autoencoder {input.autoencoder}"
        " --output {output.manifest} --attempt {resources.attempt} &> {log}"


rule classifier:
    input:
        config=f"{DATASET}/classifier/config.json",
        data=rules.data.output.manifest,
    output:
        manifest=f"{DATASET}/classifier/manifest.json",
    log:
        f"{DATASET}/classifier/log.txt",
    benchmark:
        f"{DATASET}/classifier/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=plan.classifier_gpus,
    shell:
        "python -m pipeline_lib classifier --config {input.config} --data {input.data}"
        " --output {output.manifest} --attempt {resources.attempt} &> {log}"


rule reference:
    input:
        config=f"{DATASET}/reference/config.json",
        data=rules.data.output.manifest,
        classifier=rules.classifier.output.manifest,
    output:
        manifest=f"{DATASET}/reference/manifest.json",
    log:
        f"{DATASET}/reference/log.txt",
    benchmark:
        f"{DATASET}/reference/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=plan.experiment.runtime.processes,
        nodes=plan.experiment.runtime.nodes,
    shell:
        "python -m pipeline_lib reference --config {input.config} --data {input.data} --classifier {input.classifier}"
        " --output {output.manifest}"
        " --processes {resources.gpu} --nodes {resources.nodes} --attempt {resources.attempt} &> {log}"


rule controls:
    input:
        config=f"{DATASET}/controls/config.json",
        data=rules.data.output.manifest,
        classifier=rules.classifier.output.manifest,
        reference=rules.reference.output.manifest,
        autoencoder=plan.autoencoder,
    output:
        scores=f"{DATASET}/controls/scores.parquet",
    log:
        f"{DATASET}/controls/log.txt",
    benchmark:
        f"{DATASET}/controls/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "python -m pipeline_lib controls --config {input.config} --data {input.data} --classifier {input.classifier}"
        " --reference {input.reference} --autoencoder {input.autoencoder} --output {output.scores}"
        " --attempt {resources.attempt} &> {log}"


rule bandwidths:
    input:
        config=f"{DATASET}/bandwidths/config.json",
        data=plan.trained_on,
    output:
        manifest=f"{DATASET}/bandwidths/manifest.json",
    log:
        f"{DATASET}/bandwidths/log.txt",
    benchmark:
        f"{DATASET}/bandwidths/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "python -m pipeline_lib bandwidths --config {input.config} --data {input.data}"
        " --output {output.manifest} --attempt {resources.attempt} &> {log}"
