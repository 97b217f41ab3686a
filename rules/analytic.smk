# Known answers: exact errors, estimators against them, the leak experiment, and corrections, on data whose score is known.
PROBLEM = "results/{experiment}/analytic/{problem}"


rule exact:
    input:
        config=f"{PROBLEM}/exact/config.json",
    output:
        exact=f"{PROBLEM}/exact/exact.parquet",
    log:
        f"{PROBLEM}/exact/log.txt",
    benchmark:
        f"{PROBLEM}/exact/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
    shell:
        "python -m pipeline_lib exact --config {input.config} --output {output.exact}"
        " --attempt {resources.attempt} &> {log}"


rule coverage:
    input:
        config=f"{PROBLEM}/coverage/config.json",
    output:
        coverage=f"{PROBLEM}/coverage/coverage.parquet",
    log:
        f"{PROBLEM}/coverage/log.txt",
    benchmark:
        f"{PROBLEM}/coverage/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
    shell:
        "python -m pipeline_lib coverage --config {input.config} --output {output.coverage}"
        " --attempt {resources.attempt} &> {log}"


rule leak:
    input:
        config=f"{PROBLEM}/leak/config.json",
    output:
        leak=f"{PROBLEM}/leak/leak.parquet",
    log:
        f"{PROBLEM}/leak/log.txt",
    benchmark:
        f"{PROBLEM}/leak/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
    shell:
        "python -m pipeline_lib leak --config {input.config} --output {output.leak}"
        " --attempt {resources.attempt} &> {log}"


rule corrections:
    input:
        config=f"{PROBLEM}/corrections/config.json",
    output:
        corrections=f"{PROBLEM}/corrections/corrections.parquet",
    log:
        f"{PROBLEM}/corrections/log.txt",
    benchmark:
        f"{PROBLEM}/corrections/benchmark.tsv"
    conda:
        "../envs/compute.yaml"
    resources:
        runtime=plan.job_minutes,
        mem_mb=plan.memory_mb,
        attempt=plan.attempt,
    shell:
        "python -m pipeline_lib corrections --config {input.config} --output {output.corrections}"
        " --attempt {resources.attempt} &> {log}"
