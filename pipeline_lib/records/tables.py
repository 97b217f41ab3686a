"""Tidy Parquet records: every column declared with unit and description, provenance in the file's metadata.

Stages write what they measured; who was measured (dataset, method, ...) is known from the place of the file, and the
tables stage adds it as the columns of `IDENTITY`. So a record can be shared by experiments.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_lib.exits import BadData
from pipeline_lib.records.files import atomic

VERSION = "1"


@dataclass(frozen=True)
class Column:
    """One column: arrow type name ('float32[]' for a list), unit ('' if it has none), description.

    `later`: it was added to the schema later, so an older record may be without it.
    """

    name: str
    type: str
    unit: str
    description: str
    later: bool = False

    @property
    def arrow(self) -> pa.DataType:
        """The arrow type."""
        name = self.type.removesuffix("[]")
        return pa.type_for_alias(name) if name == self.type else pa.list_(pa.type_for_alias(name))


IDENTITY = [
    Column("dataset", "string", "", "dataset of the experiment"),
    Column("method", "string", "", "training method; 'real', 'noise' and 'reconstructed' are controls"),
    Column("preset", "string", "", "preset of the method: paper, released, or none"),
    Column("variant", "string", "", "named setting of the method"),
    Column("seed", "int64", "", "training seed"),
    Column("sampler", "string", "", "named sampling of the experiment"),
]

CELL = [Column("nfe", "int64", "calls", "network calls per image, counted while sampling")]

ERRORS = [
    *CELL,
    Column("kernel", "string", "", "laplace (on the L2 norm), gaussian, rational-quadratic"),
    Column("bandwidth", "string", "", "shared: one kernel for all t; per-t: one for each"),
    Column("law", "string", "", "forward samples: marginal (q(x_t)), or training-inputs (what the network trained on)"),
    Column("statistic", "string", "", "u (unbiased) or v"),
    Column("step", "int64", "", "place in the grid: 0 is x_T, the last is x_0"),
    Column("t", "float64", "path units", "time on the path"),
    Column("log_snr", "float64", "nats", "ln(a_t^2 / s_t^2); infinite at clean data"),
    Column("length_scale", "float64", "scaled pixels", "bandwidth of the kernel"),
    Column("mmd2", "float64", "", "squared maximum mean discrepancy of sampled against forward x_t"),
    Column("se", "float64", "", "jackknife standard error"),
    Column("low", "float64", "", "lower end of the confidence interval"),
    Column("high", "float64", "", "upper end of the confidence interval"),
    Column(
        "null_quantile", "float64", "", "quantile of the permutation null at the confidence level; empty: not drawn"
    ),
    Column("p_value", "float64", "", "share of permutations at least as large; empty: not drawn"),
    Column("n", "int64", "images", "sampled chains"),
    Column("m", "int64", "images", "forward samples"),
    Column("confidence", "float64", "", "level of the interval and of the null's quantile"),
]

TRENDS = [
    *CELL,
    Column("kernel", "string", "", "as in errors"),
    Column("bandwidth", "string", "", "as in errors"),
    Column("law", "string", "", "as in errors"),
    Column("trend", "string", "", "growth-ratio, rank-correlation, exponential-rate or fluctuation"),
    Column("value", "float64", "", "the statistic of the curve"),
    Column("low", "float64", "", "lower end of the confidence interval"),
    Column("high", "float64", "", "upper end of the confidence interval"),
    Column("confidence", "float64", "", "level of the interval"),
    Column("verdict", "string", "", "of the curve, in all its rows: grows, falls, horizontal or undecided"),
    Column("tolerance", "float64", "", "the largest fluctuation that a horizontal curve may have"),
]

INFLUENCES = [
    *CELL,
    Column("kernel", "string", "", "as in errors; against the marginal law"),
    Column("bandwidth", "string", "", "as in errors"),
    Column("step", "int64", "", "as in errors"),
    Column("chains", "float32[]", "", "jackknife influence of each sampled chain on MMD^2, centred"),
    Column("forward", "float32[]", "", "the same of each forward sample"),
]

ANATOMY = [
    *CELL,
    Column("measure", "string", "", "what is measured, as in anatomy.measures"),
    Column("reading", "string", "", "which of its values; docs/anatomy.md says what each is"),
    Column("start", "float64", "", "share of T at which chains start from a true x_t; empty: no such chains"),
    Column("step", "int64", "", "as in errors; empty: a value of the whole chain"),
    Column("t", "float64", "path units", "as in errors"),
    Column("log_snr", "float64", "nats", "as in errors"),
    Column("value", "float64", "", "the estimate"),
    Column("se", "float64", "", "its standard error over samples"),
    Column("low", "float64", "", "lower end of the confidence interval"),
    Column("high", "float64", "", "upper end of the confidence interval"),
    Column("n", "int64", "", "samples that it is made from"),
    Column("confidence", "float64", "", "level of the interval"),
]

DIFFERENCES = [
    *CELL,
    Column(
        "control",
        "string",
        "",
        "method/variant that is subtracted, of the same seed, or sampling of the same run; on the same random numbers",
    ),
    Column("kernel", "string", "", "as in errors; against the marginal law"),
    Column("bandwidth", "string", "", "as in errors"),
    Column("of", "string", "", "step: a point of the curve; mean: the mean over its steps, without x_T"),
    Column("step", "int64", "", "as in errors; empty for the mean"),
    Column("t", "float64", "path units", "as in errors; empty for the mean"),
    Column("log_snr", "float64", "nats", "as in errors; empty for the mean"),
    Column("mmd2", "float64", "", "MMD^2 of the method"),
    Column("difference", "float64", "", "less that of the control; empty where there is none, and note says why"),
    Column("se", "float64", "", "jackknife standard error of the difference, from the pairs of chains"),
    Column("low", "float64", "", "lower end of its confidence interval, for these two trained networks"),
    Column("high", "float64", "", "upper end of the interval"),
    Column("confidence", "float64", "", "level of the interval"),
    Column("n", "int64", "images", "pairs of chains"),
    Column("m", "int64", "images", "forward samples"),
    Column("note", "string", "", "why there is no paired difference"),
]

MOMENTS = [
    Column("t", "float64", "path units", "time on the path"),
    Column("log_snr", "float64", "nats", "ln(a_t^2 / s_t^2)"),
    Column("gamma", "float64", "", "Gamma_t: mean square of the predicted eps, over images and their values"),
    Column("se", "float64", "", "standard error of gamma, over images"),
    Column("x0_error", "float64", "pixels^2", "mean squared error of the predicted x_0, over images and their values"),
    Column("x0_excess", "float64", "pixels^2", "variance of the predicted x_0 less that of x_0, over images"),
    Column("x0_cross", "float64", "pixels^2", "covariance of the error of the predicted x_0 with x_t, over images"),
    Column("n", "int64", "images", "training images"),
]

TRIALS = [
    Column("nfe", "int64", "calls", "network calls per image that the constants are tuned for"),
    Column("way", "string", "", "how constants are found"),
    Column("trial", "int64", "", "its number, in the order in which trials were made"),
    Column("round", "string", "", "part of the search, such as the stride or the step"),
    Column("b", "float64", "", "b of epsilon scaling; empty where the trial has none"),
    Column("k", "float64", "", "k of epsilon scaling; empty where the trial has none"),
    Column("window", "float64", "path units", "window of the time shift; empty where the trial has none"),
    Column("cutoff", "float64", "path units", "cutoff of the time shift; empty where the trial has none"),
    Column("options", "string", "", "the whole correction as JSON; null: none"),
    Column("metric", "string", "", "what is measured: FID, FD (<extractor>), or a ratio of eps norms"),
    Column("score", "float64", "", "its value on the tuning block; empty where nothing was measured"),
    Column("se", "float64", "", "standard error of a ratio of norms, over images; empty for scores"),
    Column("images", "int64", "images", "chains of the trial"),
    Column("calls", "int64", "images", "images through the network in the trial"),
    Column("seconds", "float64", "s", "wall time of the trial"),
    Column("chosen", "string", "", "chosen: its constants are used; else empty"),
]

TUNED = [
    *CELL,
    Column("origin", "string", "", "of the constants: tuned and how, transferred and from where, or untuned"),
    Column("options", "string", "", "the correction that was found, as JSON; empty where there is none"),
    Column("metric", "string", "", "FID, or FD (<extractor>)"),
    Column("score", "float64", "", "on the final samples, which no trial saw; empty where it is pending"),
    Column("trials", "int64", "", "trials of the search; empty where the constants were found elsewhere or not at all"),
    Column("tuning_calls", "float64", "images", "images through the network in these trials"),
    Column("seconds", "float64", "s", "wall time of these trials"),
    Column("share", "float64", "", "tuning_calls over the calls of the final samples of this cell"),
    Column(
        "at_end",
        "bool",
        "",
        "whether a constant lies at an end of the range that was searched, so that a better one may lie beyond; empty "
        "where nothing was tuned",
    ),
]

SCORES = [
    *CELL,
    Column(
        "control",
        "string",
        "",
        "floor: held-out real images, reconstruction: these through the autoencoder, ceiling: uniform noise, empty: "
        "samples of a run",
    ),
    Column("metric", "string", "", "FID, or FD (<extractor>), and the other scores of docs/scores.md"),
    Column("value", "float64", "", "the score; empty where it is pending"),
    Column("low", "float64", "", "lower end of its confidence interval over samples, at this number of them"),
    Column("high", "float64", "", "upper end of the interval"),
    Column("se", "float64", "", "standard error over samples"),
    Column("confidence", "float64", "", "level of the interval"),
    Column("sets", "int64", "", "disjoint sets of samples that the value is the mean of; empty: one", later=True),
    Column("set_sd", "float64", "", "standard deviation of the score over these sets", later=True),
    Column("status", "string", "", "done, or pending with the reason in note"),
    Column("note", "string", "", "why a cell is pending, or what a reader must know"),
    Column("extractor", "string", "", "feature extractor"),
    Column("extractor_sha", "string", "", "sha256 of the extractor's weights"),
    Column("library", "string", "", "code that computed the score, with its version"),
    Column("resize", "string", "", "how images reach the extractor's size"),
    Column("precision", "string", "", "arithmetic of the extractor"),
    Column("samples", "int64", "images", "images scored, in each set of them"),
    Column("reference_images", "int64", "images", "images in the reference statistics"),
    Column("reference_split", "string", "", "split that the reference statistics come from"),
    Column("reference_sha", "string", "", "sha256 of the reference statistics"),
]

PROGRESS = [
    *CELL,
    Column("step", "int64", "steps", "optimiser steps after which the averaged weights were kept; the last is the end"),
    Column("images_seen", "int64", "images", "images trained on until then, without those of what it started from"),
    Column("average", "string", "", "which average of the weights, and its length", later=True),
    Column("gpu_seconds", "float64", "s", "wall time of these steps, times processes; without what it started from"),
    Column("device", "string", "", "device of the training until then; several, joined by ' + ', where it changed"),
    Column("host", "string", "", "host of it, likewise"),
    *[column for column in SCORES if column.name not in ("nfe", "control")],
]

PROGRESS_INFLUENCES = [
    *CELL,
    Column("step", "int64", "steps", "as in progress"),
    Column("metric", "string", "", "as in scores"),
    Column("images", "float32[]", "", "influence of each scored image on the score, centred"),
]

EQUAL_COSTS = [
    Column("dataset", "string", "", "dataset of the experiment"),
    Column("method", "string", "", "training method"),
    Column("variant", "string", "", "named setting of the method"),
    Column("sampler", "string", "", "named sampling of the experiment"),
    *CELL,
    Column("metric", "string", "", "FID, or FD (<extractor>)"),
    Column("control", "string", "", "method/variant that it is compared with, of the same seeds"),
    Column("at", "string", "", "what is equal: images seen in training, or gpu-seconds spent on it"),
    Column("budget", "float64", "images or s", "how many: where the first of the two trainings ended; mean over seeds"),
    Column("value", "float64", "", "the score there, between two snapshots by a straight line"),
    Column("control_value", "float64", "", "that of the control"),
    Column("difference", "float64", "", "value less control_value, paired by seed"),
    Column("low", "float64", "", "lower end of its 95 % t-interval over seeds"),
    Column("high", "float64", "", "upper end of that interval"),
    Column("low_samples", "float64", "", "lower end of its 95 % interval over samples, for these trained networks"),
    Column("high_samples", "float64", "", "upper end of that interval"),
    Column("low_snapshots", "float64", "", "lowest difference with the snapshots around it for what is read off"),
    Column(
        "high_snapshots",
        "float64",
        "",
        "highest; where scores only fall, or rise, from one to the next, it lies between",
    ),
    Column("seeds", "int64", "", "seeds that are compared"),
    Column("samples", "int64", "images", "images scored at each snapshot"),
    Column("note", "string", "", "why there is no value, or seeds are left out; what is counted of earlier trainings"),
]

AVERAGES = [
    Column("dataset", "string", "", "dataset of the experiment"),
    Column("method", "string", "", "training method"),
    Column("variant", "string", "", "named setting of the method"),
    Column("seed", "int64", "", "training seed"),
    Column("strip", "string", "", "the first of the samplings that differ in the average alone"),
    Column("sampler", "string", "", "named sampling of the experiment"),
    *CELL,
    Column("metric", "string", "", "FID, or FD (<extractor>)"),
    Column("average", "string", "", "which average of the weights: ema is the main one, that of ema_decay"),
    Column("halflife_images", "float64", "images", "its half-life at the end of training; 0: the weights themselves"),
    Column("value", "float64", "", "the score"),
    Column("low", "float64", "", "lower end of its interval over samples"),
    Column("high", "float64", "", "upper end of that interval"),
    Column("samples", "int64", "images", "images scored"),
]

SCORE_INFLUENCES = [
    *CELL,
    Column("metric", "string", "", "as in scores"),
    Column("images", "float32[]", "", "influence of each scored image on the score, centred"),
]

SCORE_DIFFERENCES = [
    *CELL,
    Column("metric", "string", "", "as in scores; those that have a standard error"),
    Column("of", "string", "", "what the control is: method (of the same seed and sampling), or sampling (of one run)"),
    Column("control", "string", "", "method/variant, or sampling, that is subtracted; on the same random numbers"),
    Column("seeds", "int64", "", "1; in rows without a seed, those that it is the mean of"),
    Column("value", "float64", "", "the score"),
    Column("difference", "float64", "", "less that of the control; empty where there is none, and note says why"),
    Column("se", "float64", "", "standard error of the difference over samples, from the pairs of images"),
    Column("low", "float64", "", "lower end of its interval over samples, for these trained networks"),
    Column("high", "float64", "", "upper end of the interval, which does not speak of other training seeds"),
    Column("confidence", "float64", "", "level of the interval"),
    Column("n", "int64", "images", "pairs of images"),
    Column("note", "string", "", "why there is no paired difference"),
]

COSTS = [
    Column("stage", "string", "", "stage of the pipeline"),
    Column("seconds", "float64", "s", "wall time over all segments"),
    Column("cpu_seconds", "float64", "s", "CPU time of the process, all its threads, over all segments"),
    Column("gpu_hours", "float64", "h", "wall time times GPUs, over all segments; 0 on a CPU", later=True),
    Column("energy_kwh", "float64", "kWh", "what these GPUs took, whoever used them; empty: not said", later=True),
    Column("step_seconds", "float64", "s", "wall time of a training step: median over the windows of its log"),
    Column("step_cpu_seconds", "float64", "s", "CPU time of a training step, all threads: median over these windows"),
    Column("gpu_seconds", "float64", "s", "of a training: steps times their median time, times processes", later=True),
    Column("segments", "int64", "", "times that the job was started"),
    Column(
        "lost_steps", "int64", "steps", "training steps done in vain before a kill, to the last heartbeat", later=True
    ),
    Column("images", "float64", "images", "images trained on or drawn"),
    Column("images_per_second", "float64", "images/s", "throughput"),
    Column("network_calls", "float64", "images/image", "images through the network per training image, counted"),
    Column("peak_memory_mb", "float64", "MB", "largest resident memory of the process, libraries included"),
    Column("peak_gpu_memory_mb", "float64", "MB", "most memory allocated to tensors on a GPU; empty on a CPU"),
    Column("device", "string", "", "device name; several, joined by ' + ', where a training went on elsewhere"),
    Column("host", "string", "", "host name, likewise"),
    Column("driver", "string", "", "version of the GPU's driver", later=True),
    Column("job", "string", "", "SLURM's number of the last job; empty outside of SLURM", later=True),
]

HISTORY = [
    Column("step", "int64", "steps", "optimiser steps done"),
    Column("images", "int64", "images", "images seen"),
    Column("key", "string", "", "what was logged"),
    Column("value", "float64", "", "its mean since the line before"),
]

FAULTS = [
    Column("kill", "int64", "", "number of the kill"),
    Column("training", "int64", "", "number of the training that was hit; each is hit until it ends"),
    Column("kind", "string", "", "the signal, and where SIGKILL came while a checkpoint was written"),
    Column("delay", "float64", "s", "from the beginning of the step to the signal; empty: in a write"),
    Column("written", "float64", "", "share of the checkpoint's bytes that were written; empty: not in a write"),
    Column("step", "int64", "steps", "steps that the process had begun"),
    Column("exit_code", "int64", "", "of the process; 75: saved, try again; negative: the signal that ended it"),
    Column("resumed", "int64", "steps", "steps that the next process went on after"),
    Column(
        "bit_equal", "bool", "", "weights and history of the training are those of one that nothing hit, bit by bit"
    ),
]

PLACE = [
    Column("setting", "string", "", "the chain: which denoiser, which reverse variance"),
    Column("step", "int64", "", "place in the grid: 0 is x_T, the last is x_0"),
    Column("t", "float64", "path units", "time on the path"),
    Column("log_snr", "float64", "nats", "ln(a_t^2 / s_t^2); infinite at clean data"),
]

EXACT = [
    *PLACE,
    Column("kl", "float64", "nats", "KL(p_theta(x_t) || q(x_t)): the cumulative error; at step 0 that of the prior"),
    Column("before", "float64", "nats", "kl one step before; empty at step 0"),
    Column("modular_p_p", "float64", "nats", "E over p_theta(x) of KL(p_theta || q) of the step that ends here"),
    Column("modular_p_q", "float64", "nats", "E over q(x) of KL(p_theta || q) of the step that ends here"),
    Column("modular_q_p", "float64", "nats", "E over p_theta(x) of KL(q || p_theta) of the step that ends here"),
    Column("modular_q_q", "float64", "nats", "E over q(x) of KL(q || p_theta) of the step that ends here"),
    Column("gap", "float64", "nats", "E of KL between the backward conditionals: kl = before + modular_p_p - gap"),
    Column("mmd2", "float64", "", "MMD^2 under the Gaussian kernel of length_scale"),
    Column("length_scale", "float64", "pixels", "root mean squared distance of two forward samples"),
    Column("delta", "float64", "pixels^2", "delta_t of the chain that starts from noised x_0"),
    Column("spread_gap", "float64", "pixels", "its signed root: mean standard deviation of x_t - a_t x_0, less s_t"),
    Column("spread_gap_step", "float64", "pixels", "the same after a single step from the true x_t"),
    Column("eps_norm_sampling", "float64", "", "root mean squared norm of the eps that is predicted while sampling"),
    Column("eps_norm_training", "float64", "", "the same at the true x_t"),
    Column("eps_kl", "float64", "nats", "KL of the law of the predicted eps while sampling from N(0, I), a dimension"),
    Column("amplification", "float64", "", "largest factor by which the step stretches an input error, in units of q"),
    Column(
        "carried", "float64", "", "largest factor by which an error of x_T is left after all steps so far, likewise"
    ),
    Column("entropy", "float64", "nats", "differential entropy of p_theta(x_t)"),
]

COVERAGE = [
    Column("quantity", "string", "", "what is estimated or tested"),
    *PLACE,
    Column("size", "float64", "", "size of the planted error, or bootstrap length L; empty where there is none"),
    Column("n", "int64", "images", "samples of one estimate"),
    Column("repeats", "int64", "", "independent estimates"),
    Column("level", "float64", "", "stated level: of the interval, or of the test"),
    Column("share", "float64", "", "share of estimates whose interval holds the exact value, or of tests that reject"),
    Column("low", "float64", "", "lower end of the 99.9 % interval of the share"),
    Column("high", "float64", "", "upper end of the 99.9 % interval of the share"),
    Column("exact", "float64", "", "exact value"),
    Column("mean", "float64", "", "mean of the estimates, or the bootstrapped value"),
    Column("sd", "float64", "", "standard deviation of the estimates"),
    Column("mean_se", "float64", "", "mean of the estimated standard errors"),
    Column("verdict", "string", "", "what follows"),
]

LEAK = [
    Column("leak", "float64", "", "share of the steps that are done with the true score"),
    *PLACE,
    Column("quantity", "string", "", "kl, mmd2, spread-gap, eps-norm-ratio"),
    Column("exact", "float64", "", "exact value"),
    Column("estimate", "float64", "", "from sampled chains; empty where there is no estimator"),
    Column("low", "float64", "", "lower end of the confidence interval"),
    Column("high", "float64", "", "upper end of the confidence interval"),
    Column("n", "int64", "images", "sampled chains"),
]

CORRECTIONS = [
    Column("setting", "string", "", "what the denoiser gets wrong"),
    Column("eta", "float64", "", "eta of DDIM: 1 is ancestral sampling with variance fixed-small"),
    Column("nfe", "int64", "calls", "steps of the chain"),
    Column("correction", "string", "", "none, epsilon-scaling, or variance-downscaling with its reading"),
    Column("factor", "float64", "", "lambda of epsilon scaling"),
    Column("kl", "float64", "nats", "KL(p_theta(x_0) || q(x_0)): the cumulative error at x_0"),
    Column("kl_noisy", "float64", "nats", "the same at the last noisy x_t"),
    Column("spread", "float64", "", "variance of the sampled x_0 over that of the data, summed over pixels"),
    Column("infeasible", "float64", "", "share of the noisy steps where variance downscaling has too little to take"),
]

THEORY = [
    Column("claim", "string", "", "the statement"),
    Column("source", "string", "", "where it is made, and how sure its wording is: found, memory or derived"),
    Column("problem", "string", "", "data and path"),
    Column("setting", "string", "", "the chain"),
    Column("reading", "string", "", "which of the readings of the statement"),
    Column("measured", "float64", "", "the number that decides, as `note` says"),
    Column("excess", "float64", "", "largest amount by which a step misses the statement; 0 or less where none does"),
    Column("holds", "float64", "", "share of the steps on which the statement holds"),
    Column("steps", "int64", "", "steps on which it is defined"),
    Column("verdict", "string", "", "holds, fails, or undefined"),
    Column("note", "string", "", "what was measured"),
]

COMPARISON = [
    Column("dataset", "string", "", "dataset of the experiment"),
    Column("method", "string", "", "training method"),
    Column("label", "string", "", "its name in tables and figures"),
    Column("variant", "string", "", "named setting of the method"),
    Column("preset", "string", "", "preset of the method: paper, released, or none"),
    Column("sampler", "string", "", "named sampling of the experiment"),
    *CELL,
    Column("metric", "string", "", "FID, or FD (<extractor>)"),
    Column("mean", "float64", "", "mean score over seeds; empty where there is none, and note says why"),
    Column("sd", "float64", "", "standard deviation over seeds; empty with one seed"),
    Column("sample_low", "float64", "", "of one seed: lower end of the score's interval over samples"),
    Column("sample_high", "float64", "", "upper end of this interval"),
    Column("seeds", "int64", "", "seeds that have a score"),
    Column("control", "string", "", "method/variant that differs in the method alone"),
    Column("pairs", "int64", "", "seeds that both method and control have"),
    Column("difference", "float64", "", "mean over these seeds of score less that of the control"),
    Column("low", "float64", "", "lower end of its 95 % t-interval; empty with fewer than two pairs"),
    Column("high", "float64", "", "upper end of the interval"),
    Column("half_width", "float64", "", "half the wider of both intervals: below it nothing is told from zero"),
    Column("difference_sample_low", "float64", "", "lower end of its interval over samples, paired by image"),
    Column("difference_sample_high", "float64", "", "upper end; of these trained networks, not of other seeds"),
    Column("published", "float64", "", "published score on this dataset"),
    Column("elsewhere", "string", "", "the row's published scores on all its datasets"),
    Column("tag", "string", "", "how sure the published scores are: found in a source, or from memory"),
    Column("source", "string", "", "paper, table and row"),
    Column("verdict", "string", "", "within tolerance, differs, unverified, or not comparable and why"),
    Column("steps", "float64", "steps", "optimiser steps, with those of what it starts from; mean over seeds"),
    Column("images", "float64", "images", "images that these steps saw, mean over seeds"),
    Column("step_seconds", "float64", "s", "wall time of a step, median over a training; mean over seeds"),
    Column("step_seconds_sd", "float64", "s", "its standard deviation over seeds"),
    Column("step_cpu_seconds", "float64", "s", "CPU time of a step, all threads, likewise; empty on a GPU"),
    Column("step_cpu_seconds_sd", "float64", "s", "its standard deviation over seeds"),
    Column("peak_memory_mb", "float64", "MB", "most memory over seeds: of tensors on a GPU, else of the process"),
    Column("images_in_control_time", "float64", "images", "images it would have seen in the control's training time"),
    Column("device", "string", "", "device of the trainings"),
    Column("note", "string", "", "why seeds have no score, and what a reader must know"),
]


def _place(columns: Sequence[Column], name: str) -> int:
    return [c.name for c in columns].index(name)


SAMPLINGS = [
    *COMPARISON[: _place(COMPARISON, "sampler") + 1],
    Column("corrections", "string", "", "sampler and corrections with the options that are not their defaults"),
    *COMPARISON[_place(COMPARISON, "sampler") + 1 : _place(COMPARISON, "control")],
    Column("control", "string", "", "sampling of the same runs that is subtracted"),
    *COMPARISON[_place(COMPARISON, "control") + 1 : _place(COMPARISON, "steps")],
    Column("mmd2", "float64", "", "MMD^2 at x_0 under the first kernel, mean over seeds"),
    Column("mmd2_difference", "float64", "", "less that of the control, mean over seeds"),
    Column("mmd2_low", "float64", "", "lower end of the interval of a pair of samplings of one run, mean over seeds"),
    Column("mmd2_high", "float64", "", "upper end"),
    Column("note", "string", "", "why there is no score or difference"),
]

SWEEP = [
    Column("line", "string", "", "runs that form one line of the figure"),
    Column("x", "float64", "", "value of the sweep's key"),
    Column("y", "float64", "", "value of its second key; empty where it has none"),
    *COMPARISON,
]

COSTS_RELATIVE = [
    Column("dataset", "string", "", "dataset of the experiment"),
    Column("method", "string", "", "training method"),
    Column("label", "string", "", "its name in tables and figures"),
    Column("variant", "string", "", "named setting of the method"),
    Column("control", "string", "", "method/variant that differs in the method alone"),
    Column("seeds", "int64", "", "seeds whose training is done"),
    Column("step_seconds", "float64", "s", "wall time of a step, median over a training; mean over seeds"),
    Column("step_cpu_seconds", "float64", "s", "CPU time of a step, all threads, likewise; empty on a GPU"),
    Column("peak_memory_mb", "float64", "MB", "most memory over seeds: of tensors on a GPU, else of the process"),
    Column("network_calls", "float64", "images/image", "images through the network per training image, counted"),
    Column("expected_calls", "float64", "images/image", "the same as the objective's algorithm says"),
    Column("relative_step_seconds", "float64", "", "step_seconds over that of the control; empty: note says why"),
    Column("relative_step_cpu_seconds", "float64", "", "step_cpu_seconds likewise"),
    Column("relative_peak_memory_mb", "float64", "", "peak_memory_mb likewise"),
    Column("relative_network_calls", "float64", "", "network_calls likewise"),
    Column("device", "string", "", "device of the trainings"),
    Column("note", "string", "", "why there is no comparison with the control"),
]

BESIDE = ("trends", "influences", "anatomy")  # records that a job writes beside its main one, and no rule reads

SCHEMAS: dict[str, list[Column]] = {
    "errors": ERRORS,
    "trends": TRENDS,
    "influences": INFLUENCES,
    "anatomy": ANATOMY,
    "differences": DIFFERENCES,
    "moments": MOMENTS,
    "trials": TRIALS,
    "tuned": TUNED,
    "scores": SCORES,
    "score_influences": SCORE_INFLUENCES,
    "score_differences": SCORE_DIFFERENCES,
    "progress": PROGRESS,
    "progress_influences": PROGRESS_INFLUENCES,
    "equal_costs": EQUAL_COSTS,
    "averages": AVERAGES,
    "costs": COSTS,
    "costs_relative": COSTS_RELATIVE,
    "history": HISTORY,
    "faults": FAULTS,
    "exact": EXACT,
    "coverage": COVERAGE,
    "leak": LEAK,
    "corrections": CORRECTIONS,
    "theory": THEORY,
    "comparison": COMPARISON,
    "samplings": SAMPLINGS,
    "sweep": SWEEP,
}


def schema(columns: Sequence[Column], provenance: Mapping[str, Any] | None = None) -> pa.Schema:
    """The arrow schema with unit and description as field metadata."""
    fields = [pa.field(c.name, c.arrow, metadata={"unit": c.unit, "description": c.description}) for c in columns]
    metadata = {"schema_version": VERSION, "provenance": json.dumps(dict(provenance or {}), sort_keys=True)}
    return pa.schema(fields, metadata=metadata)


def frame(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Rows as a frame with exactly the declared columns, in order; raises ValueError for an undeclared one."""
    given = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    names = [c.name for c in columns]
    if unknown := set(given.columns) - set(names):
        raise ValueError(f"undeclared columns: {sorted(unknown)}")
    return given.reindex(columns=names)


def write(
    path: Path | str,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    columns: Sequence[Column],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write rows atomically; a column that the schema does not declare is refused, a missing one becomes null."""
    table = pa.Table.from_pandas(frame(rows, columns), schema=schema(columns, provenance), preserve_index=False)
    table = table.replace_schema_metadata(schema(columns, provenance).metadata)
    with atomic(Path(path)) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(path: Path | str, columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """Read a record; with `columns`, raise BadData where it lacks one of them, but for those added later."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadData(f"the record {path} cannot be read ({error}); {_remedy(Path(path))}.") from None
    if columns and (missing := {c.name for c in columns if not c.later} - set(table.column_names)):
        raise BadData(f"the record {path} lacks the columns {sorted(missing)}; {_remedy(Path(path))}.")
    rows = table.to_pandas()
    return rows.assign(**{c.name: None for c in columns or () if c.name not in rows})


def _remedy(path: Path) -> str:
    """How a record is made again: Snakemake misses only the record that its job is named after."""
    main = f"{path.parent.name}.parquet"
    return f"delete {f'{main} beside it' if path.stem in BESIDE else 'it'} and run again"


def provenance(path: Path | str) -> dict[str, Any]:
    """The provenance that a record was written with."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(b"provenance", b"{}"))
