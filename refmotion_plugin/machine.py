"""What this machine offers to a run that is started on it."""
import os
import subprocess


def visible_gpus(command="nvidia-smi"):
    """Names of the GPUs that a run started here would see, in its own numbering; [] if there is none."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        text = subprocess.run([command, "--query-gpu=index,uuid,name", "--format=csv,noheader"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, universal_newlines=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    known = [[part.strip() for part in line.split(",", 2)] for line in text.splitlines() if line.count(",") >= 2]
    if allowed is None:
        return [name for _, _, name in known]
    return _allowed_gpus(known, allowed)


def _allowed_gpus(known, allowed):
    """CUDA takes numbers or beginnings of UUIDs, in this order, up to the first that does not exist."""
    names = []
    for wanted in filter(None, (part.strip() for part in allowed.split(","))):
        match = [name for index, uuid, name in known if wanted == index or (not wanted.isdigit() and uuid.startswith(wanted))]
        if len(match) != 1:
            break
        names.append(match[0])
    return names


def usable_cores():
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
