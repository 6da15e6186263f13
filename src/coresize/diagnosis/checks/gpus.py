"""GPUs: those that are there, beside those that may be used."""

from __future__ import annotations

import itertools

from coresize.diagnosis.findings import Finding, Skipped
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.context import Context

_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: What hides all that come after it.
_NONE = ("-1", "NoDevFiles")


class Gpu(Value):
    """A GPU, as the driver tells of it.

    Attributes:
        name: its model.
        uuid: what it is called on every machine, such as "GPU-8932f937-...".
    """

    name: str
    uuid: str


def gpus(context: Context) -> Iterator[Finding]:
    """What the driver sees and what CUDA_VISIBLE_DEVICES leaves of it.

    Raises:
        Skipped: nobody can say what is there.
    """
    given = context.variable(_VARIABLE).get(_VARIABLE)
    if given is not None:
        yield from compare(given, _present())


def compare(given: str, present: list[Gpu]) -> Iterator[Finding]:
    """What CUDA_VISIBLE_DEVICES names, beside the GPUs that are there.

    CUDA C++ Programming Guide, "CUDA Environment Variables": GPUs by their number or
    by the beginning of their UUID. Those before the first that is not there are used,
    and no other; -1 is never there.
    """
    named = [one.strip() for one in given.split(",") if one.strip()]
    chosen = list(itertools.takewhile(lambda one: one not in _NONE, named))
    unknown = [one for one in chosen if not _is_there(one, present)]
    if unknown:
        yield _unknown(given, unknown, present)
    elif len(chosen) < len(present):
        names = ", ".join(gpu.name for gpu in present)
        yield Finding(
            severity="note",
            check="GPUs",
            title=f"{len(chosen)} of {len(present)} GPUs may be used",
            seen=f"{_VARIABLE}={given}; {names}",
            where=f"{_VARIABLE}, and the driver (NVML)",
            why="the other GPUs are hidden from this program",
            advice=f"unset {_VARIABLE} to use all GPUs",
        )


def _is_there(device: str, present: list[Gpu]) -> bool:
    """Whether a GPU is; parts of one (MIG) are not looked for."""
    if device.isdigit():
        return int(device) < len(present)
    if device.startswith("MIG-"):
        return True
    return any(gpu.uuid.startswith(device) for gpu in present)


def _unknown(given: str, unknown: list[str], present: list[Gpu]) -> Finding:
    numbers = f"only 0 to {len(present) - 1}" if len(present) > 1 else "only 0"
    return Finding(
        severity="error",
        check="GPUs",
        title=f"{_VARIABLE} names GPUs that are not there: {', '.join(unknown)}",
        seen=f"{_VARIABLE}={given}; there are {numbers if present else 'none'}",
        where=f"{_VARIABLE}, and the driver (NVML)",
        why="CUDA uses only the GPUs that are listed before the first missing one",
        advice=f"unset {_VARIABLE}, or list only GPUs that are there",
    )


def _present() -> list[Gpu]:
    try:
        import pynvml
    except ImportError:
        reason = "the extra coresize[gpu] (nvidia-ml-py) is not installed"
        raise Skipped(reason) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        reason = f"no driver answers here (NVML: {error})"
        raise Skipped(reason) from None
    try:
        handles = map(
            pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount())
        )
        return [
            Gpu(
                name=_text(pynvml.nvmlDeviceGetName(handle)),
                uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
            )
            for handle in handles
        ]
    except pynvml.NVMLError as error:
        reason = f"the driver gives no answer (NVML: {error})"
        raise Skipped(reason) from None
    finally:
        pynvml.nvmlShutdown()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
