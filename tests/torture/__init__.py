"""Kill a training again and again: `python -m tests.torture`."""
