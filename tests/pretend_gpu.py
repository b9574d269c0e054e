"""A GPU that is not there: tensors that say they are on ``cuda:0``, compute on the CPU, and refuse what a real one would refuse.

It finds tensors of host and device in one operation, values read back one by one (each makes the host wait), memory beyond what the
device has, and code that needs a CUDA build. Numbers are those of the CPU, so results can be held against it to the last bit.
"""
import collections
import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

ENGINE = str(Path(__file__).resolve().parents[1] / "refmotion_plugin" / "engine")
CUDA = torch.device("cuda", 0)
READ_BACK = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "nonzero", "masked_select", "unique", "equal",
             "allclose", "bincount", "__contains__"}
MOVES = {"to", "copy_", "cpu", "cuda", "__setitem__", "type"}       # may have host and device in one call
DEVICE_OPTIONS = {"device"}


class OnDevice(torch.Tensor):
    """A tensor of the pretended device around the tensor that holds its numbers."""

    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=CUDA)
        self.__dict__["inner"] = inner
        return self

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if PretendGpu.active is None:
            raise AssertionError("a tensor of the pretended device is used outside of it, in %s" % function)
        return PretendGpu.active.call(function, args, kwargs or {})

    __torch_dispatch__ = None

    def record_stream(self, stream):
        """Nothing: memory is not given to other streams here."""


class PretendGpu(TorchFunctionMode):
    """While active, ``cuda`` devices exist. ``capacity``: bytes, beyond which torch.cuda.OutOfMemoryError is raised.

    ``waits``: Counter of (file:line of the engine, what) that made the host wait; ``double``: float64 operations likewise;
    ``peak``: most bytes alive at the end of an operation.
    """

    active = None

    def __init__(self, capacity=float("inf")):
        super().__init__()
        self.capacity, self.peak = capacity, 0
        self.waits, self.double = collections.Counter(), collections.Counter()
        self._alive, self._bytes, self.runtime = {}, 0, _Runtime()
        self.plans = _Plans()

    def __enter__(self):
        PretendGpu.active = self
        self._patches = contextlib.ExitStack()
        for name, value in cuda_functions(self).items():
            self._patches.enter_context(_replaced(torch.cuda, name, value))
        self._patches.enter_context(_replaced(torch.backends.cuda, "cufft_plan_cache", {CUDA: self.plans, str(CUDA): self.plans}))
        return super().__enter__()

    def __exit__(self, *exception):
        self._patches.close()
        PretendGpu.active = None
        return super().__exit__(*exception)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self.call(function, args, kwargs or {})

    def call(self, function, args, kwargs):
        """One torch function."""
        name = getattr(function, "__name__", str(function))
        ours = list(_tensors((args, kwargs), OnDevice))
        target, args, kwargs = _without_device(name, args, kwargs)
        if name == "__get__" and ours:
            asked = getattr(function.__self__, "__name__", "")
            if asked in ("device", "is_cuda", "is_cpu"):
                return {"device": CUDA, "is_cuda": True, "is_cpu": False}[asked]
        if ours and name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first (%s)" % _place())
        self._refuse_mixtures(name, args, kwargs, ours)
        back = bool(ours) and (name in READ_BACK or (name in ("to", "type") and target == "cpu") or _by_mask(name, args)
                               or (name in ("copy_", "__setitem__") and not isinstance(args[0], OnDevice)))
        if back:
            self.waits[_place(), name] += 1
        with torch._C.DisableTorchFunction():
            result = function(*_inner(args), **_inner(kwargs))
        if name in ("cpu",) or (name in ("to", "type") and target == "cpu"):
            return result.clone() if any(result is o.inner for o in ours) else result
        on_device = target == "cuda" or (ours and target is None and not (name in ("copy_", "__setitem__") and not isinstance(args[0], OnDevice)))
        if not on_device:
            return result
        if not ours and name in ("to", "as_tensor", "tensor"):
            if not (name == "to" and kwargs.get("non_blocking")):
                self.waits[_place(), "copy to the device"] += 1
            result = result.clone()             # a move is always a copy
        doubles = [t.inner.numel() for t in ours if t.inner.dtype == torch.float64]
        if doubles:
            self.double[_place()] += max(doubles)
        return self._wrapped(result, ours)

    def _refuse_mixtures(self, name, args, kwargs, ours):
        hosts = [t for t in _tensors((args, kwargs), torch.Tensor) if not isinstance(t, OnDevice) and t.dim() > 0] if ours else []
        index_from_host = name == "__getitem__" and isinstance(args[0], OnDevice)
        if ours and hosts and name not in MOVES and not index_from_host:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu, in %s at %s"
                               % (name, _place()))

    def _wrapped(self, result, ours):
        if isinstance(result, OnDevice) or not isinstance(result, (torch.Tensor, tuple, list)):
            return result
        if isinstance(result, torch.Tensor):
            for own in ours:
                if result is own.inner:
                    return own
            self._count(result)
            return OnDevice(result)
        if hasattr(result, "_fields") or type(result) not in (tuple, list):      # torch's named results
            return type(result)([self._wrapped(r, ours) for r in result])
        return type(result)(self._wrapped(r, ours) for r in result)

    def _count(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive and not self._alive[key][0].expired():
            return
        size = storage.nbytes()
        self._forget()
        if self._bytes + size > self.capacity:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate %d bytes at %s (pretended; %d of %d in use)"
                                              % (size, _place(), self._bytes, self.capacity))
        self._alive[key] = (StorageWeakRef(storage), size)
        self._bytes += size
        self.peak = max(self.peak, self._bytes)

    def _forget(self):
        for key in [k for k, (reference, _) in self._alive.items() if reference.expired()]:
            self._bytes -= self._alive.pop(key)[1]

    def per_place(self):
        """{file:line what: how often} of what made the host wait, most often first."""
        return {"%s %s" % key: count for key, count in self.waits.most_common()}


def cuda_functions(gpu):
    """Stand-ins for torch.cuda."""
    total = 16 * 2 ** 30 if gpu.capacity == float("inf") else int(gpu.capacity)
    return dict(is_available=lambda: True, device_count=lambda: 1, get_device_name=lambda device=None: "a pretended GPU",
                mem_get_info=lambda device=None: (total, total),
                get_device_properties=lambda device=None: SimpleNamespace(total_memory=total), empty_cache=lambda: None, Stream=_Stream, Event=_Event,
                current_stream=lambda device=None: _Stream(), stream=lambda stream: contextlib.nullcontext(), device=lambda device: contextlib.nullcontext(),
                synchronize=lambda device=None: None, cudart=lambda: gpu.runtime)


class _Runtime:
    """What is asked of the CUDA runtime itself; ``pinned`` {address: size}."""

    def __init__(self):
        self.pinned = {}

    def cudaHostRegister(self, address, size, flags):
        """0: accepted."""
        self.pinned[address] = size
        return 0

    def cudaHostUnregister(self, address):
        """0, or 1 for memory that is not pinned."""
        return 0 if self.pinned.pop(address, None) else 1


class _Plans:
    """Those of transforms that torch keeps; ``cleared``: how often."""

    max_size, cleared = 4096, 0

    def clear(self):
        """Counted."""
        self.cleared += 1


class _Event:
    def __init__(self, *args, **kwargs):
        pass

    def record(self, stream=None):
        """Nothing."""

    def elapsed_time(self, other):
        """Nothing."""
        return 0.0

    synchronize = record


class _Stream(_Event):
    def record_event(self, event=None):
        """A new event."""
        return _Event()

    def wait_event(self, event):
        """Nothing."""

    wait_stream = wait_event


@contextlib.contextmanager
def _replaced(module, name, value):
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _tensors(tree, kind):
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _tensors(part, kind)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()), kind)


def _inner(tree):
    if isinstance(tree, OnDevice):
        return tree.__dict__["inner"]
    if isinstance(tree, (tuple, list)) and type(tree) in (tuple, list):
        return type(tree)(_inner(part) for part in tree)
    return {k: _inner(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def _device_type(value):
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu"):
        return value.split(":")[0]
    return None


def _without_device(name, args, kwargs):
    """(cuda, cpu or None; the arguments with the host in its place)."""
    target = _device_type(kwargs["device"]) if kwargs.get("device") is not None else None
    kwargs = {**kwargs, "device": "cpu"} if target else kwargs
    if name in ("to", "cuda"):
        for i, value in enumerate(args[1:], 1):
            if _device_type(value):
                target, args = _device_type(value), args[:i] + (torch.device("cpu"),) + args[i + 1:]
            elif isinstance(value, torch.Tensor) and i == 1:
                target = "cuda" if isinstance(value, OnDevice) else "cpu"
    return target, args, kwargs


def _by_mask(name, args):
    if name not in ("__getitem__", "__setitem__") or not isinstance(args[0], OnDevice):
        return False
    return any(_inner(t).dtype in (torch.bool, torch.uint8) for t in _tensors(args[1] if isinstance(args[1], (tuple, list)) else [args[1]], torch.Tensor))


def _place():
    """file:line of the engine that called."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(ENGINE):
            return "%s:%d" % (path[len(ENGINE) + 1:], frame.f_lineno)
        frame = frame.f_back
    return "outside the engine"


__all__ = ["CUDA", "OnDevice", "PretendGpu", "np"]
