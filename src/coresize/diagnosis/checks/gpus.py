"""GPUs: the devices of the machine, compared with those that may be used."""

from __future__ import annotations

import itertools

from coresize.detection.parse import device_number, visible_devices
from coresize.diagnosis.findings import Finding, Skipped
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.context import Context

_VARIABLE = "CUDA_VISIBLE_DEVICES"
#: Names that hide all devices after them.
_NONE = ("-1", "NoDevFiles")


class Gpu(Value):
    """A GPU, as the driver describes it.

    Attributes:
        name: the model.
        uuid: the globally unique name, such as "GPU-8932f937-...".
    """

    name: str
    uuid: str


def gpus(context: Context) -> Iterator[Finding]:
    """The GPUs of the driver, compared with those in CUDA_VISIBLE_DEVICES.

    Raises:
        Skipped: the GPUs of the machine are not known.
    """
    value = context.variable(_VARIABLE).get(_VARIABLE)
    if value is not None:
        yield from compare(value, _present())


def compare(value: str, present: list[Gpu]) -> Iterator[Finding]:
    """The names in CUDA_VISIBLE_DEVICES, compared with the GPUs of the machine.

    CUDA C++ Programming Guide, "CUDA Environment Variables": a GPU is named by its
    number or by the beginning of its UUID. CUDA uses the GPUs before the first name
    that does not exist, and no others; -1 never exists.
    """
    names = [name.strip() for name in value.split(",") if name.strip()]
    named = list(itertools.takewhile(lambda name: name not in _NONE, names))
    unknown = [name for name in named if not _is_there(name, present)]
    chosen = visible_devices(value)
    if unknown:
        yield _unknown(value, unknown, present)
    elif named and not chosen:
        yield _none_visible(value)
    elif len(chosen) < len(present):
        models = ", ".join(gpu.name for gpu in present)
        yield Finding(
            severity="note",
            code="gpus-hidden",
            check="GPUs",
            title=f"{len(chosen)} of {len(present)} GPUs may be used",
            seen=f"{_VARIABLE}={value}; {models}",
            where=f"{_VARIABLE}, and the driver (NVML)",
            why="the other GPUs are hidden from this program",
            advice=f"unset {_VARIABLE} to use all GPUs",
        )


def _is_there(name: str, present: list[Gpu]) -> bool:
    """Whether a GPU of this name exists; parts of GPUs (MIG) are not checked."""
    number = device_number(name)
    if number is not None:
        return number < len(present)
    if name.startswith("MIG-"):
        return True
    return any(gpu.uuid.startswith(name) for gpu in present)


def _unknown(value: str, unknown: list[str], present: list[Gpu]) -> Finding:
    numbers = f"only 0 to {len(present) - 1}" if len(present) > 1 else "only 0"
    return Finding(
        severity="error",
        code="gpu-missing",
        check="GPUs",
        title=f"{_VARIABLE} names GPUs that are not there: {', '.join(unknown)}",
        seen=f"{_VARIABLE}={value}; there are {numbers if present else 'none'}",
        where=f"{_VARIABLE}, and the driver (NVML)",
        why="CUDA uses only the GPUs that are listed before the first missing one",
        advice=f"unset {_VARIABLE}, or list only GPUs that are there",
    )


def _none_visible(value: str) -> Finding:
    return Finding(
        severity="error",
        code="gpu-twice",
        check="GPUs",
        title=f"{_VARIABLE} hides all GPUs",
        seen=f"{_VARIABLE}={value}",
        where=_VARIABLE,
        why="CUDA uses no GPU at all if the list names one of them twice",
        advice=f"list each GPU once in {_VARIABLE}",
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
