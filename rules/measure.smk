# Measurements of trained runs: the cumulative error over t and how it comes about, and the scores of the samples.


rule errors:
    input:
        unpack(plan.given("data", "moments", "guide", "tuned")),
        config=f"{CELLS}/errors/config.json",
        train=rules.train.output.manifest,
        bandwidths=rules.bandwidths.output.manifest,
    output:
        errors=f"{CELLS}/errors/errors.parquet",
        trends=f"{CELLS}/errors/trends.parquet",
        influences=f"{CELLS}/errors/influences.parquet",
        anatomy=f"{CELLS}/errors/anatomy.parquet",
    log:
        f"{CELLS}/errors/log.txt",
    benchmark:
        f"{CELLS}/errors/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "python -m pipeline_lib errors --config {input.config} --train {input.train} --data {input.data}"
        " --bandwidths {input.bandwidths} --moments {input.moments} --guide {input.guide}"
        " --tuned {input.tuned} --output {output.errors} --trends {output.trends}"
        " --influences {output.influences} --anatomy {output.anatomy} --attempt {resources.attempt} &> {log}"


rule progress:
    input:
        unpack(plan.given("autoencoder", "guide")),
        config=f"{CELLS}/progress/config.json",
        train=rules.train.output.manifest,
        sample=rules.sample.output.manifest,
        classifier=rules.classifier.output.manifest,
        reference=rules.reference.output.manifest,
    output:
        progress=f"{CELLS}/progress/progress.parquet",
        influences=f"{CELLS}/progress/influences.parquet",
    log:
        f"{CELLS}/progress/log.txt",
    benchmark:
        f"{CELLS}/progress/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "python -m pipeline_lib progress --config {input.config} --train {input.train} --sample {input.sample}"
        " --classifier {input.classifier} --reference {input.reference} --autoencoder {input.autoencoder}"
        " --guide {input.guide} --output {output.progress} --influences {output.influences}"
        " --attempt {resources.attempt} &> {log}"


rule scores:
    input:
        config=f"{CELLS}/scores/config.json",
        sample=rules.sample.output.manifest,
        classifier=rules.classifier.output.manifest,
        reference=rules.reference.output.manifest,
    output:
        scores=f"{CELLS}/scores/scores.parquet",
        influences=f"{CELLS}/scores/influences.parquet",
    log:
        f"{CELLS}/scores/log.txt",
    benchmark:
        f"{CELLS}/scores/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=plan.experiment.runtime.processes,
        nodes=plan.experiment.runtime.nodes,
    shell:
        "python -m pipeline_lib scores --config {input.config} --sample {input.sample} --classifier {input.classifier}"
        " --reference {input.reference} --output {output.scores}"
        " --influences {output.influences}"
        " --processes {resources.gpu} --nodes {resources.nodes} --attempt {resources.attempt} &> {log}"
