"""The MLflow view of an experiment: a copy of what lies in results/, which can be rebuilt at any time."""
