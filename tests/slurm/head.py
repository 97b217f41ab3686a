"""Snakemake, but its SLURM plugin looks at the jobs every two seconds; its own pauses grow to three minutes."""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
main()
