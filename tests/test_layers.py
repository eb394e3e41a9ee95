"""The shape of the code base: imports only go down, files stay small (design section 2)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent

LAYER = {
    "types": 0, "task": 0, "thinking": 0, "turns": 0, "settings": 0, "named": 0, "seeds": 0, "clock": 0, "process": 0,
    "verdict": 0, "files": 0, "again": 0, "word": 0, "defaults": 0, "arguments": 0, "__init__": 0, "envs": 0,
    "dist": 1, "address": 1, "objectives": 1, "context": 1,
    "engine": 2, "model": 2,
    "report": 3, "verify": 3, "observe": 3, "learn": 3, "measure": 3, "storage": 3, "guard": 3,
    "alarm": 3,
    "algorithms": 4,
    "config": 5, "folder": 5, "advice": 5, "manual": 5, "compose": 5, "commandline": 5, "session": 5, "resume": 5,
    "services": 5, "train": 5, "evaluate": 5, "sweep": 5, "plan": 5, "doctor": 5, "push": 5, "api": 5, "__main__": 5,
}  # fmt: skip


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(ROOT / "resd").parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_imports_go_down() -> None:
    for path in _sources("resd"):
        part = _part(path)
        for name in _imports(path):
            if name.startswith("resd."):
                target = name.split(".")[1]
                if target in LAYER and not _for_types_only(path, name):
                    assert LAYER[target] <= LAYER[part], f"{path.name} ({part}) imports {name}"


def _for_types_only(path: Path, name: str) -> bool:
    return any(
        isinstance(node, ast.If)
        and getattr(node.test, "id", "") == "TYPE_CHECKING"
        and name.split(".")[1] in ast.dump(node)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_every_module_has_a_layer() -> None:
    assert {_part(path) for path in _sources("resd")} <= set(LAYER)


def test_context_and_tasks_stay_pure() -> None:
    heavy = {"torch", "transformers", "hydra", "omegaconf"}
    for path in [*_sources("resd/context"), *_sources("envs")]:
        assert not {name.split(".")[0] for name in _imports(path)} & heavy, path
    for path in _sources("envs"):
        inside = {name.split(".")[1] for name in _imports(path) if name.startswith("resd.")}
        assert inside <= {"types", "task", "thinking", "named", "verdict", "envs"}, path


def test_tasks_are_imported_by_one_name() -> None:
    for path in [p for folder in ("resd", "envs", "scripts", "tests") for p in _sources(folder)]:
        assert not [name for name in _imports(path) if name.split(".")[0] == "envs"], path


def test_only_their_homes_import_hydra_omegaconf_vllm() -> None:
    programs = {"config", "advice", "manual", "compose", "commandline", "train", "evaluate", "sweep"}
    homes = {"vllm": {"engine"}, "omegaconf": programs, "hydra": programs}
    for path in _sources("resd"):
        for name in {name.split(".")[0] for name in _imports(path)} & set(homes):
            assert _part(path) in homes[name], f"{path} imports {name}"


def test_no_algorithm_is_named_outside_its_file() -> None:
    for path in _sources("resd"):
        if _part(path) != "algorithms":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare):
                    constants = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
                    assert not constants & {"resd", "sdpo", "sdpo_ss", "grpo"}, f"{path}:{node.lineno}"


def test_files_stay_small() -> None:
    for folder, limit in (("resd", 320), ("envs", 400), ("scripts", 400), ("tests", 450)):
        for path in _sources(folder):
            assert path.read_text().count("\n") <= limit, path


def test_configuration_files_stay_small() -> None:
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert path.read_text().count("\n") <= (48 if path.name == "config.yaml" else 18), path
