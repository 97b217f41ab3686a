"""A Snakemake logger (`--logger stages`) that says in a line a job what is done, what is left and for how long.

Found through PYTHONPATH=profiles/local. Durations of jobs that have not run yet are taken from the benchmark files of
earlier runs, where there are any.
"""

import sys
import time
from collections import Counter
from logging import ERROR, LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from pipeline_lib.records.progress import duration


class LogHandler(LogHandlerBase):
    """Prints one line when a job starts and one when it ends."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.running: dict[int, tuple[Any, float]] = {}
        self.seconds: dict[str, list[float]] = {}

    def emit(self, record: LogRecord) -> None:
        """Delegate each event to its method; other messages pass only if they are errors."""
        event = getattr(record, "event", None)
        handler = {
            LogEvent.RUN_INFO: self._run,
            LogEvent.JOB_INFO: self._start,
            LogEvent.JOB_FINISHED: self._finish,
            LogEvent.JOB_ERROR: self._fail,
        }.get(event)
        if handler:
            handler(record)
        elif record.levelno >= ERROR and (text := record.getMessage()) not in ("None", ""):
            self._print(text)
        elif event is None and "Nothing to be done" in str(record.msg):
            self._print("Nothing to be done: every result is there and up to date.")

    def _run(self, record: LogRecord) -> None:
        self.totals = Counter({k: v for k, v in record.stats.items() if k not in ("total", "all")})
        listed = ", ".join(f"{count} {rule}" for rule, count in sorted(self.totals.items(), key=lambda kv: kv[0]))
        self._print(f"{self.totals.total()} jobs to do: {listed}")

    def _start(self, record: LogRecord) -> None:
        if record.rule_name == "all":
            return
        self.running[record.jobid] = (record, time.monotonic())
        self._print(f"         {self._label(record)} ... log: {next(iter(record.log), '-')}")

    def _finish(self, record: LogRecord) -> None:
        job, start = self.running.pop(record.job_id, (None, 0.0))
        if job is None:
            return
        seconds = time.monotonic() - start
        self.done[job.rule_name] += 1
        self.seconds.setdefault(job.rule_name, []).append(seconds)
        rule = job.rule_name
        of_rule = f"{self.done[rule]}/{self.totals[rule]}" if self.totals[rule] > 1 else ""
        place = f"[{self.done.total():3d}/{self.totals.total()}]"
        self._print(f"{place} {self._label(job, of_rule)} done in {duration(seconds)}; {self._left()}")

    def _fail(self, record: LogRecord) -> None:
        job, _ = self.running.pop(record.jobid, (record, 0.0))
        log = next(iter(job.log), None)
        lines = Path(log).read_text(errors="replace").splitlines() if log and Path(log).is_file() else []
        told = next((line for line in reversed(lines) if " error: " in line or " stopped: " in line), None)
        why = told.split(" ", 1)[1] if told else "ended without a word; was it killed, or out of memory?"
        self._print(f"[failed ] {self._label(job)}: {why}\n          log: {log}")

    def _left(self) -> str:
        """Time left, from the mean time of each rule; a lower bound while some rules have never run."""
        if self.done == self.totals:
            return "all done"
        means = {rule: sum(s) / len(s) for rule in self.totals if (s := self._known(rule))}
        seconds = sum((total - self.done[rule]) * means.get(rule, 0.0) for rule, total in self.totals.items())
        begun = sum(time.monotonic() - start for _, start in self.running.values())
        left = max(seconds - begun, 0) / max(len(self.running), 1)
        if len(means) == len(self.totals):
            return f"about {duration(left)} left"
        return f"at least {duration(left)} left" if left else "time left not known yet"

    def _known(self, rule: str) -> list[float]:
        """Seconds of the finished jobs of this rule, or those of earlier runs from their benchmark files."""
        if rule not in self.seconds:
            files = list(Path("results").glob(f"**/{rule}/benchmark.tsv"))[-20:]
            rows = [f.read_text().splitlines() for f in files]
            self.seconds[rule] = [float(r[1].split("\t")[0]) for r in rows if len(r) > 1]
        return self.seconds[rule]

    @staticmethod
    def _label(record: Any, of_rule: str = "") -> str:
        values = {k: v for k, v in dict(record.wildcards or {}).items() if k != "experiment"}
        if "seed" in values:
            values["seed"] = f"s{values['seed']}"
        return " ".join(filter(None, [record.rule_name, of_rule, "/".join(values.values())]))

    @staticmethod
    def _print(text: str) -> None:
        print(text, file=sys.stderr, flush=True)
