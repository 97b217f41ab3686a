"""Configuration: YAML files -> validated models -> the resolved configuration of each instance and stage."""
