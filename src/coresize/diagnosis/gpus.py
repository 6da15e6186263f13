"""GPUs: those that are there, beside those that may be used."""

from __future__ import annotations

from coresize.diagnosis.findings import Finding
from coresize.diagnosis.skipping import Skipped


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.patient import Patient

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def gpus(patient: Patient) -> Iterator[Finding]:
    """What the driver sees and what CUDA_VISIBLE_DEVICES leaves of it.

    Raises:
        Skipped: nobody can say what is there.
    """
    given = patient.variable(_VARIABLE).get(_VARIABLE)
    if given is not None:
        yield from compare(given, _present())


def compare(given: str, present: list[str]) -> Iterator[Finding]:
    """What CUDA_VISIBLE_DEVICES names beside the GPUs that are there, by their names.

    CUDA C++ Programming Guide, "CUDA Environment Variables": those before the first
    that is not there are used, and no other; -1 is never there.
    """
    chosen = [one.strip() for one in given.split(",") if one.strip()]
    if "-1" in chosen:
        chosen = chosen[: chosen.index("-1")]
    unknown = [one for one in chosen if one.isdigit() and int(one) >= len(present)]
    if unknown:
        there = f"only 0 to {len(present) - 1}" if len(present) > 1 else len(present)
        yield Finding(
            severity="error",
            check="GPUs",
            title=f"{_VARIABLE} names GPUs that are not there: {', '.join(unknown)}",
            seen=f"{_VARIABLE}={given}; there are {there or 'none'}",
            where=f"{_VARIABLE}, and the driver (NVML)",
            why="CUDA uses those before the first that is not there, and no other",
            advice=f"unset {_VARIABLE}, or name those that are there",
        )
    elif len(chosen) < len(present):
        yield Finding(
            severity="note",
            check="GPUs",
            title=f"{len(chosen)} of {len(present)} GPUs may be used",
            seen=f"{_VARIABLE}={given}; {', '.join(present)}",
            where=f"{_VARIABLE}, and the driver (NVML)",
            why="the others are hidden from this program",
            advice=f"unset {_VARIABLE} to use all",
        )


def _present() -> list[str]:
    try:
        import pynvml
    except ImportError:
        reason = "the extra coresize[gpu] (nvidia-ml-py) is not installed"
        raise Skipped(reason) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver: no GPUs
    try:
        handles = map(
            pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount())
        )
        return [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
