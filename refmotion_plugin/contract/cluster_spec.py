"""How a cluster is asked for workers: the parameters of a SLURM job that is one worker process."""
from typing import List, Optional

from pydantic import Field

from .spec import JobSpec, _Part


class ClusterSpec(_Part):
    """A JSON file with these keys goes to ``--cluster``. One SLURM job is one worker process and works on one movie at a time."""

    jobs: int = Field(1, ge=1, description="number of SLURM jobs, each one worker process")
    queue: Optional[str] = Field(None, description="partition")
    account: Optional[str] = Field(None, description="account that pays")
    cores: int = Field(1, ge=1, description="cores of a job: threads of its worker")
    memory: str = Field("8GB", description="memory of a job, such as 64GB")
    walltime: str = Field("12:00:00", description="longest time of a job, h:min:s")
    directives: List[str] = Field(default_factory=list, description="further lines after #SBATCH, such as --gres=gpu:1")
    prologue: List[str] = Field(default_factory=list, description="shell lines before the worker starts, such as module load cuda")
    python: Optional[str] = Field(None, description="Python of the workers; none: the one that runs the job")
    interface: Optional[str] = Field(None, description="network interface over which workers reach the job, such as ib0")
    local_directory: Optional[str] = Field(None, description="scratch folder on the nodes; none: dask's own choice")
    log_directory: Optional[str] = Field(None, description="folder of the SLURM jobs' output; none: where the job was started")

    build = classmethod(JobSpec.build.__func__)
    read = classmethod(JobSpec.read.__func__)
