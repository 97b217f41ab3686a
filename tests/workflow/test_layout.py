"""What must hold of the tree itself."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.workflow.conftest import ROOT


def constraints() -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, rest = line.partition("==")
        pins.setdefault(name.strip(), set()).add(rest.split(";")[0].strip())
    return pins


def test_environments_have_the_pins_of_the_constraints() -> None:
    pins = constraints()
    for path in (ROOT / "envs").glob("*.yaml"):
        listed = yaml.safe_load(path.read_text())["dependencies"][-1]["pip"]
        for requirement in listed:
            name, version = requirement.split("==")
            assert version in pins[name], f"{path.name}: {requirement}"


def test_constraints_hold_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"://|@ |--", text)
    assert "+cpu" not in text


def test_every_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    pins = {name.lower() for name in constraints()}
    assert {re.split(r"[<>=!~ ]", w)[0].lower() for w in wanted} <= pins


def test_snakefile_is_short_and_rules_hold_no_logic() -> None:
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 80
    for path in (ROOT / "rules").glob("*.smk"):
        assert not re.search(r"\b(lambda|def|import|if|for)\b", re.sub(r"#.*", "", path.read_text())), path.name


def test_parsing_needs_no_torch() -> None:
    code = (
        "import sys; from pipeline_lib.config.plan import load; list(load('config.yaml').stage_configs());"
        "heavy = {'torch', 'pandas', 'mlflow', 'sklearn', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_imports_go_one_way() -> None:
    """config, records < data < diffusion < networks < samplers < objectives < training < errors, scores < ..."""
    order = [
        {"config", "records"},
        {"data"},
        {"diffusion"},
        {"networks"},
        {"samplers"},
        {"objectives"},
        {"training"},
        {"errors", "scores"},
        {"analytic"},
        {"tracking", "reporting"},
    ]
    rank = {room: i for i, rooms in enumerate(order) for room in rooms}
    for room, level in rank.items():
        for path in (ROOT / "pipeline_lib" / room).rglob("*.py"):
            for used in re.findall(r"^\s*(?:from|import) pipeline_lib\.(\w+)", path.read_text(), re.MULTILINE):
                assert rank.get(used, -1) <= level, f"{path.relative_to(ROOT)} imports {used}"


def test_a_report_is_made_of_a_failed_workflow_though_its_tables_fail(tmp_path: Path) -> None:
    """Snakemake runs what `onerror` says with `set -euo pipefail`."""
    (loop,) = re.findall(r'f"(for stage in .*)"', (ROOT / "Snakefile").read_text())
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$3" >> stages\n[ "$3" = report ]\n')
    stub.chmod(0o755)
    command = f"set -euo pipefail; PATH={tmp_path}:$PATH; {loop.replace('{plan.name}', 'tiny')}"
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "stages").read_text().split() == ["tables", "figures", "report"]
