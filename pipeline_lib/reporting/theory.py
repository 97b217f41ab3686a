"""The papers' claims against the exact errors: a row for each claim, reading and chain, and what follows from it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.analytic import curves
from pipeline_lib.analytic.coverage import NEAR
from pipeline_lib.config.models import Imperfection
from pipeline_lib.records.files import write_text
from pipeline_lib.records.tables import CORRECTIONS, COVERAGE, EXACT, LEAK, THEORY, Column, read, write
from pipeline_lib.reporting.collect import ANALYTIC_STAGES, joined
from pipeline_lib.reporting.summaries import markdown

PROBLEM = Column("problem", "string", "", "data and path")
ANALYTIC = {
    "theory": THEORY,
    "exact": [PROBLEM, *EXACT],
    "coverage": [PROBLEM, *COVERAGE],
    "leak": [PROBLEM, *LEAK],
    "corrections": [PROBLEM, *CORRECTIONS],
}
READINGS = {column: f"KL({direction}) over {law}" for column, (direction, law) in curves.READINGS.items()}
NO_ERROR = Imperfection().model_dump(mode="json")
FLOOR = 1e-6  # nats; below this a ratio of errors is rounding
RELATIVE = 1e-6  # tolerance of an inequality
GAUSSIAN_EPS = 0.01  # nats a dimension from N(0, I) that still count as N(0, I)
THEOREM = "Li and van der Schaar (2024), Theorem 3.1 [memory, high]"
SUPERADDITIVE = "E_t >= E_{t+1} + E_t^mod"
CHAIN_RULE = "chain rule of the KL divergence [derived]"
OTHER = "the same inequality in another reading, which the chain rule does not speak of"
FACTOR = "Li and van der Schaar (2024), Eq. 6 [found]"
BOUND = "Li and van der Schaar (2024), Proposition 4.1 [memory, medium]"
ASSUMED = "Li and van der Schaar (2024), assumption of Theorem 3.1 [found]"
ZERO = "Li and van der Schaar (2024), Proposition A.1 [memory, low]"
WIDER = "Ning et al. (2024) [found]"
CONTROL = "negative control [derived]"
SCALED = "Ning et al. (2024), epsilon scaling [found]"
DOWNSCALED = "variance downscaling, discussed by Ning et al. (2024) [memory, low]"
CELL = ["setting", "eta", "nfe"]  # of the corrections

Row = dict[str, Any]


def records(folder: Path, experiment: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The tables of the analytic section from the records below `folder`; a missing record leaves its rows out."""
    pieces: dict[str, list[pd.DataFrame]] = {name: [] for name in ANALYTIC_STAGES}
    for problem in experiment["analytic"]["problems"]:
        for name, found in pieces.items():
            path = folder / "analytic" / problem / name / f"{name}.parquet"
            if path.is_file():
                found.append(read(path, ANALYTIC[name][1:]).assign(problem=problem))
    tables = {name: joined(found, ANALYTIC[name]) for name, found in pieces.items()}
    verdicts = [row for _, curve in _curves(tables["exact"]) for row in claims(curve, experiment)]
    for _, corrected in tables["corrections"].groupby("problem", sort=False):
        verdicts += correction_claims(corrected, experiment)
    return {"theory": joined([pd.DataFrame(verdicts)], THEORY), **tables}


def write_tables(folder: Path, experiment: Mapping[str, Any]) -> None:
    """Write `tables/{theory,exact,coverage,leak,corrections}.{parquet,csv,md}`."""
    tables = records(folder, experiment)
    texts = {
        "theory": f"# Claims\n\n{CLAIM_NOTE}\n\n{markdown(summary(tables['theory']))}",
        "exact": f"# Exact errors\n\n{markdown(ends(tables['exact']))}",
        "coverage": "# Estimators against exact values\n\n"
        f"{COVERAGE_NOTE}\n\n{markdown(coverage_summary(tables['coverage']))}\n{BOOTSTRAP_NOTE}\n\n{markdown(bootstrap_summary(tables['coverage']))}",
        "leak": f"# Leak experiment\n\n{markdown(leak_summary(tables['leak']))}",
        "corrections": f"# Corrections\n\n{CORRECTION_NOTE}\n\n{markdown(corrections_summary(tables['corrections']))}",
    }
    for name, rows in tables.items():
        target = folder / "tables" / name
        write(target.with_suffix(".parquet"), rows, ANALYTIC[name], {"experiment": experiment["experiment"]})
        write_text(target.with_suffix(".csv"), rows.to_csv(index=False))
        write_text(target.with_suffix(".md"), texts[name])


CLAIM_NOTE = (
    "`holds` counts the chains in which the statement holds at every step on which it is defined; `steps` is the share "
    "of all such steps. `worst` is the number farthest on the wrong side. Every chain has its row in theory.csv."
)
COVERAGE_NOTE = (
    "`share` is pooled over chains and t: of intervals that hold the exact value, or of tests that reject. Near the "
    "null MMD² is skewed, and the permutation test decides there. Every t has its row in coverage.csv."
)
CORRECTION_NOTE = (
    "Exact KL at x_0, in nats, of short chains of DDIM (eta 0) and ancestral sampling with fixed-small variance (eta "
    "1). Spread: variance of the sampled x_0 over that of the data, uncorrected. Infeasible: share of the noisy steps "
    "at which the paper's reading of variance downscaling would take more noise than there is. Every lambda has its "
    "row in corrections.csv."
)
BOOTSTRAP_NOTE = (
    "Share of the MMD² at x_0 that a rollout of 1..L steps from the true x_s shows: the training-time estimate of D_t, "
    "in closed form."
)


def claims(curve: pd.DataFrame, experiment: Mapping[str, Any]) -> Iterator[Row]:
    """Every claim on one chain: `curve` holds its exact errors in the order of the steps, x_T first."""
    problem, setting = str(curve["problem"].iloc[0]), str(curve["setting"].iloc[0])
    about = experiment["analytic"]["problems"][problem]["settings"][setting]
    who = {"problem": problem, "setting": setting}
    for row in (*_perfect(curve, about), *_equation(curve), *_bounds(curve), *_assumptions(curve), *_spread(curve)):
        yield {**who, **row}


def _perfect(curve: pd.DataFrame, about: Mapping[str, Any]) -> Iterator[Row]:
    """An error-free denoiser samples every q(x_t): only with the exact reverse variance, and up to the prior."""
    if about["error"] != NO_ERROR:
        return
    prior, kl = float(curve["kl"].iloc[0]), curve["kl"].iloc[1:]
    claim = "an error-free denoiser gives p_theta(x_t) = q(x_t)"
    note = f"largest KL in nats; the prior alone leaves {prior:.2g}"
    yield _verdict(claim, ZERO, f"{about['variance']} variance", kl, kl - prior, note, kl.max())


def _equation(curve: pd.DataFrame) -> Iterator[Row]:
    """The propagation equation, in every reading of the modular error."""
    steps = curve.iloc[1:]
    assumed = (steps["eps_kl"] <= GAUSSIAN_EPS) & (curve["entropy"].diff().iloc[1:] <= RELATIVE)
    for column, reading in READINGS.items():
        known = steps[np.isfinite(steps[[column, "kl", "before"]]).all(axis=1)]
        where = f"{reading}, where its assumptions hold"
        within = known[assumed[known.index]]
        slack = within["before"] + within[column] - within["kl"]
        yield _verdict(
            SUPERADDITIVE, THEOREM, where, within["kl"], slack, "least E_t - E_{t+1} - E_t^mod", -slack.max()
        )
        excess = known["kl"] - known["before"] - known[column]
        size = known["kl"]
        yield _verdict(SUPERADDITIVE, THEOREM, reading, size, -excess, "least E_t - E_{t+1} - E_t^mod", excess.min())
        yield _verdict(
            "E_t <= E_{t+1} + E_t^mod",
            CHAIN_RULE if column == "modular_p_p" else OTHER,
            reading,
            size,
            excess,
            "largest E_t - E_{t+1} - E_t^mod",
            excess.max(),
        )
        ratio = known[known["before"] > FLOOR]
        factor = (ratio["kl"] - ratio[column]) / ratio["before"]
        for least in (0, 1):
            yield _verdict(
                f"mu_t >= {least}", FACTOR, reading, factor.abs(), least - factor, "least mu_t", factor.min()
            )


def _bounds(curve: pd.DataFrame) -> Iterator[Row]:
    """The bounds of the KL divergence by MMD^2 under a kernel of at most 1."""
    known = curve[np.isfinite(curve["kl"]) & (curve["kl"] > FLOOR) & (curve["mmd2"] > 0)]
    ratio = known["kl"] / known["mmd2"]
    yield _verdict("E_t >= MMD^2 / 4", BOUND, "gaussian kernel", ratio, 0.25 - ratio, "least E_t / MMD^2", ratio.min())
    yield _verdict("E_t <= MMD^2", BOUND, "gaussian kernel", ratio, ratio - 1, "largest E_t / MMD^2", ratio.max())


def _assumptions(curve: pd.DataFrame) -> Iterator[Row]:
    """What the theorem assumes, and whether errors of the input shrink."""
    steps = curve.iloc[1:]
    eps = steps["eps_kl"]
    yield _verdict(
        "eps_theta(x_t) ~ N(0, I) while sampling",
        ASSUMED,
        f"within {GAUSSIAN_EPS} nats a dimension",
        eps,
        eps - GAUSSIAN_EPS,
        "largest KL from N(0, I) a dimension",
        eps.max(),
    )
    rise = curve["entropy"].diff().iloc[1:]
    yield _verdict(
        "entropy of p_theta(x_t) never rises", ASSUMED, "", rise.abs(), rise, "largest rise in nats", rise.max()
    )
    stretch = steps["amplification"]
    yield _verdict(
        "input errors shrink", CONTROL, "in units of q", stretch, stretch - 1, "largest factor", stretch.max()
    )


def _spread(curve: pd.DataFrame) -> Iterator[Row]:
    steps = curve.iloc[1:]
    for column, reading in {"spread_gap": "whole chain", "spread_gap_step": "one step from the true x_t"}.items():
        gap = steps[column]
        yield _verdict(
            "sampling spreads wider than q(x_t | x_0)", WIDER, reading, gap.abs(), -gap, "least gap", gap.min()
        )


def correction_claims(rows: pd.DataFrame, experiment: Mapping[str, Any]) -> Iterator[Row]:
    """What corrections of the sampler do to the error at x_0 of one problem: `rows` of its table."""
    errors = experiment["analytic"]["corrections"]["denoisers"]
    perfect = next((name for name, error in errors.items() if error == NO_ERROR), None)
    for (setting, level), group in rows.groupby(["setting", "eta"], sort=False):
        eta = float(str(level))
        kinds = {str(kind): one.set_index("nfe") for kind, one in group.groupby("correction", sort=False)}
        plain, scaled, who = kinds.pop("none")["kl"], kinds.pop("epsilon-scaling"), sampler(eta)
        where = {"problem": str(rows["problem"].iloc[0]), "setting": str(setting)}
        undone = {**errors[str(setting)], "scale": 1.0} == NO_ERROR and setting != perfect
        exactly = scaled[np.isclose(scaled["factor"], errors[str(setting)]["scale"])]["kl"]
        if undone and perfect and len(exactly):
            right = rows[rows["setting"].eq(perfect) & rows["eta"].eq(eta) & rows["correction"].eq("none")]
            gap = (exactly - right.set_index("nfe")["kl"]).abs()
            claim = "epsilon scaling by lambda undoes an eps that is lambda times too large"
            yield where | _verdict(claim, CONTROL, who, exactly, gap, "largest gap to the right eps", gap.max())
        above = scaled[scaled["factor"] > 1].groupby("nfe")["kl"].min()
        change = above / plain
        claim = "some lambda above 1 lowers the error at x_0"
        yield where | _verdict(claim, SCALED, who, plain, above - plain, "largest KL over uncorrected", change.max())
        for kind, one in kinds.items():
            if not one["infeasible"].eq(1).all():  # nothing is changed there
                change = one["kl"] / plain
                claim, reading = "variance downscaling lowers the error at x_0", f"{kind.split(', ')[1]}, {who}"
                note = "largest KL over uncorrected"
                yield where | _verdict(claim, DOWNSCALED, reading, plain, one["kl"] - plain, note, change.max())


def sampler(eta: float) -> str:
    """The name by which DDIM at this eta is known."""
    return {0.0: "DDIM", 1.0: "ancestral"}.get(eta, f"DDIM, eta {eta:g}")


def corrections_summary(corrections: pd.DataFrame) -> pd.DataFrame:
    """A row for every chain: the error at x_0 uncorrected, at the best lambda, and with variance downscaling."""
    found = []
    for _, group in corrections.groupby(["problem", *CELL], sort=False):
        kinds = {str(kind): one for kind, one in group.groupby("correction", sort=False)}
        plain, scaled = kinds["none"].iloc[0], kinds["epsilon-scaling"]
        best = scaled.iloc[int(scaled["kl"].to_numpy().argmin())]
        row = {"problem": plain["problem"], "denoiser": plain["setting"], "sampler": sampler(plain["eta"])}
        row |= {"calls": plain["nfe"], "spread": plain["spread"], "KL": plain["kl"]}
        row |= {"best lambda": best["factor"], "KL with it": best["kl"]}
        for kind, one in kinds.items():
            if kind.startswith("variance"):
                row[f"KL, {kind}"] = one["kl"].iloc[0]
                row |= {"infeasible": one["infeasible"].iloc[0]} if kind.endswith("paper") else {}
        found.append(row)
    return pd.DataFrame(found)


def _verdict(claim: str, source: str, reading: str, size: pd.Series, excess: pd.Series, note: str, worst: float) -> Row:
    """A claim holds on a step where `excess` is at most rounding: 1e-6 of `size`, and 1e-9."""
    holds = excess <= RELATIVE * size.abs() + 1e-9
    return {
        "claim": claim,
        "source": source,
        "reading": reading,
        "measured": float(worst) if len(excess) else np.nan,
        "excess": float(excess.max()) if len(excess) else np.nan,
        "holds": float(holds.mean()) if len(excess) else np.nan,
        "steps": len(excess),
        "verdict": "undefined" if not len(excess) else "holds" if holds.all() else "fails",
        "note": note,
    }


def summary(theory: pd.DataFrame) -> pd.DataFrame:
    """One row a claim and reading over all chains."""
    rows = []
    for (claim, reading), group in theory[theory["verdict"] != "undefined"].groupby(["claim", "reading"], sort=False):
        held = int(group["verdict"].eq("holds").sum())
        worst = group.iloc[int(group["excess"].to_numpy(float).argmax())]
        rows.append(
            {
                "claim": claim,
                "reading": reading,
                "chains": len(group),
                "holds": f"{held} of {len(group)}",
                "steps": f"{100 * np.average(group['holds'], weights=group['steps']):.0f} %",
                "worst": f"{worst['measured']:.3g} ({worst['problem']}, {worst['setting']})",
                "what": worst["note"].split(";")[0],
                "source": worst["source"],
            }
        )
    columns = ["claim", "reading", "holds", "steps", "worst", "what", "source"]
    return pd.DataFrame(rows, columns=columns)


def ends(exact: pd.DataFrame) -> pd.DataFrame:
    """Prior error, error at the last noisy x_t and at x_0, of every chain."""
    rows = []
    for (problem, setting), curve in _curves(exact):
        first, noisy, last = curve.iloc[0], curve.iloc[-2], curve.iloc[-1]
        rows.append(
            {
                "problem": problem,
                "setting": setting,
                "prior KL (E_{T+1})": first["kl"],
                "KL at the last noisy x_t": noisy["kl"],
                "KL at x_0": last["kl"],
                "MMD² at x_0": last["mmd2"],
                "delta at x_0": last["delta"],
                "left of an error of x_T": last["carried"],
                "eps-norm ratio": last["eps_norm_sampling"] / last["eps_norm_training"],
            }
        )
    return pd.DataFrame(rows)


def coverage_summary(coverage: pd.DataFrame) -> pd.DataFrame:
    """Shares pooled over chains and t, with how many rows have each verdict."""
    rows = []
    tested = coverage[coverage["quantity"].ne("bootstrap")]
    marked = tested.assign(near=tested["verdict"].eq(NEAR), size=tested["size"].map("{:g}".format, na_action="ignore"))
    keys = ["problem", "quantity", "near", "size"]
    for (problem, quantity, near, size), group in marked.fillna({"size": ""}).groupby(keys, sort=False):
        counts = group["verdict"].value_counts(sort=False)
        rows.append(
            {
                "problem": problem,
                "quantity": f"{quantity}, near the null" if near else quantity,
                "planted error": size,
                "level": group["level"].iloc[0],
                "share": group["share"].mean(),
                "lowest": group["share"].min(),
                "highest": group["share"].max(),
                "exact MMD²": group["exact"].iloc[0] if quantity in ("power", "smallest-detected") else np.nan,
                "n": group["n"].iloc[0],
                "rows": len(group),
                "verdicts": "" if near else ", ".join(f"{v}: {n}" for v, n in counts.items()),
            }
        )
    return pd.DataFrame(rows)


def bootstrap_summary(coverage: pd.DataFrame) -> pd.DataFrame:
    """Share of the error at x_0 that a rollout of L steps shows, a column for each L."""
    rows = coverage[coverage["quantity"].eq("bootstrap") & (coverage["exact"] > 1e-9) & np.isinf(coverage["log_snr"])]
    shown = rows.assign(share=rows["mean"] / rows["exact"], L=rows["size"].map("L = {:.0f}".format))
    wide = shown.pivot_table(index=["problem", "setting"], columns="L", values="share", sort=False)
    return wide.map("{:.1%}".format).reset_index()


def leak_summary(leak: pd.DataFrame) -> pd.DataFrame:
    """What the error after each leak has become at x_0, and how many estimates hold the exact value on the way."""
    keys = ["problem", "leak", "quantity"]
    known = leak[leak["estimate"].notna()]
    inside = known.assign(inside=known["exact"].between(known["low"], known["high"]))
    held = inside.groupby(keys, sort=False)["inside"].agg(["sum", "size"])
    last = leak.loc[leak.groupby(keys, sort=False)["step"].idxmax()].set_index(keys)
    joined_rows = last[["exact", "estimate", "low", "high"]].join(held).reset_index()
    texts = [
        f"{int(a)} of {int(b)}" if pd.notna(b) else ""
        for a, b in zip(joined_rows["sum"], joined_rows["size"], strict=True)
    ]
    return joined_rows.drop(columns=["sum", "size"]).assign(**{"estimates that hold it, at all t": texts})


def _curves(exact: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for (problem, setting), curve in exact.groupby(["problem", "setting"], sort=False):
        yield (str(problem), str(setting)), curve.sort_values("step")
