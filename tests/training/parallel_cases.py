"""Small trainings of every objective, and how far apart rounding alone drives two of them."""

from typing import Any

EDM = {"path": "edm", "prediction": "edm"}
CASES: dict[str, dict[str, Any]] = {
    "ddpm": {"training": {"flip": True}},
    "ddpm-reg": {"objective": {"name": "ddpm-reg", "bootstrap_length": 2}, "training": {"mmd_group": 8}},
    "adm by loss": {
        "objective": {"name": "adm-ip"},
        "diffusion": {"learned_variance": True},
        "training": {"steps": 16},  # from step 12 on all losses of every t are known
    },
    "consistent-dm": {"objective": {"name": "consistent-dm", "chain_steps": 3}},
    "consistent-dm on edm": {"objective": {"name": "consistent-dm", "chain_steps": 3}, "diffusion": EDM},
    "fp-diffusion": {"objective": {"name": "fp-diffusion"}},
    "edm": {
        "objective": {"name": "edm", "augment": 0.5},
        "diffusion": EDM,
        "network": {"name": "songunet", "augment": True},
    },
    "pfgmpp": {"objective": {"name": "pfgmpp"}, "diffusion": {**EDM, "path": "pfgm"}},
}
ROUNDING = {name: 1e-3 if name == "fp-diffusion" else 1e-6 for name in CASES}  # differences of gradients lose digits
