"""Tables as Markdown, and results as files that say where and when they were made."""
from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import sys
from pathlib import Path


def markdown_table(header: list[str], rows: list[list]) -> str:
    """A Markdown table; numbers get three digits, None a dash."""
    cells = [header] + [[_cell(v) for v in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"
    return str(value)


def where_and_when() -> dict:
    """The machine, the date, the command and the programs' versions."""
    import torch

    import refmotion_plugin

    return {"cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(), "python": platform.python_version(), "torch": torch.__version__,
            "refmotion_plugin": refmotion_plugin.__version__, "date": datetime.date.today().isoformat(),
            "command": _preloaded() + shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folder, sys.argv[1:])])}


def _preloaded() -> str:
    """Libraries that the environment puts in front of all others: they may change how fast programs are, so they belong to the command."""
    libraries = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return f"LD_PRELOAD={':'.join(map(_without_folder, libraries))} " if libraries else ""


def _without_folder(argument: str) -> str:
    """Paths by their last name: where a folder lay on one machine says nothing to others."""
    return Path(argument).name if os.path.isabs(argument) else argument


def cpu_model() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def write_results(folder: Path, name: str, title: str, sections: list[tuple[str, str]], data: dict) -> Path:
    """Write ``name.md`` and ``name.json``; ``sections`` are (heading, Markdown). Returns the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    where = where_and_when()
    (folder / f"{name}.json").write_text(json.dumps({"where": where, **data}, indent=1) + "\n")
    text = [f"# {title}", "", f"{where['date']}, {where['cpu']}, {where['cores']} cores, "
            f"torch {where['torch']}, refmotion_plugin {where['refmotion_plugin']}", "", f"    {where['command']}", ""]
    for heading, body in sections:
        text += [f"## {heading}", "", body, ""]
    path = folder / f"{name}.md"
    path.write_text("\n".join(text))
    return path
