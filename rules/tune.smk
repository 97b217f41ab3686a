# The constants of corrections, found for each trained run and number of calls on chains that nothing else sees.


rule tune:
    input:
        unpack(plan.given("data", "autoencoder", "moments", "guide")),
        config=f"{CELLS}/tune/config.json",
        train=rules.train.output.manifest,
        classifier=rules.classifier.output.manifest,
        reference=rules.reference.output.manifest,
    output:
        manifest=f"{CELLS}/tune/manifest.json",
        trials=f"{CELLS}/tune/trials.parquet",
    log:
        f"{CELLS}/tune/log.txt",
    benchmark:
        f"{CELLS}/tune/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
        gpu=1,
    shell:
        "exec python -m pipeline_lib tune --config {input.config} --train {input.train} --data {input.data}"
        " --classifier {input.classifier} --reference {input.reference} --autoencoder {input.autoencoder}"
        " --moments {input.moments} --guide {input.guide} --output {output.manifest} --trials {output.trials}"
        " --max-minutes {resources.runtime} --attempt {resources.attempt} &> {log}"
