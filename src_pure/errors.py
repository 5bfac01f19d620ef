"""The errors of this project, and the one line that each is shown as."""

import os
import re


class CheckpointError(RuntimeError):
    """A checkpoint, a policy taken out of one, or a table that cannot be written or used."""


class CannotWriteError(CheckpointError):
    """A checkpoint or a policy that could not be put on disk."""


class DamagedError(CheckpointError):
    """A checkpoint, a policy or a table whose content was read and is not what was written."""


class RemovedError(CheckpointError):
    """A checkpoint that its training removed while another process read it: there is a newer one."""


class OddFileError(CheckpointError):
    """Something that this project never makes lies where it keeps a file or folder: a link, a pipe, a device."""


class ForeignError(CheckpointError):
    """A file in a run folder that belongs to another run."""


class MovedError(OSError):
    """The run folder was moved, deleted or replaced since it was opened."""


def one_line(error: object, limit: int = 300) -> str:
    """The message in one line, its middle left out where it is too long; held folders get their names back."""
    text = " ".join(str(error).split())
    text = re.sub(r"/proc/self/fd/(\d+)", _name_of_descriptor, text)
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def _name_of_descriptor(match: re.Match[str]) -> str:
    try:
        return os.readlink(match[0])
    except OSError:
        return match[0]
