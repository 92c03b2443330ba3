"""The one runner of external programs, and deadlines."""

from snf_image_process.deadline import Deadline, DeadlineError
from snf_image_process.runner import PIPE, Completed, ProcessError, Running, clean_environment, run, start

__all__ = [
    "PIPE",
    "Completed",
    "Deadline",
    "DeadlineError",
    "ProcessError",
    "Running",
    "clean_environment",
    "run",
    "start",
]
